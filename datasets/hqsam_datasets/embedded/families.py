"""All shape families by name, and the split that makes the evaluation zero-shot."""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

from hqsam_datasets.embedded.families_eval import DEV, EVAL
from hqsam_datasets.embedded.families_everyday import EVERYDAY
from hqsam_datasets.embedded.families_train import TRAIN
from hqsam_datasets.embedded.shapes import Shape

TRAIN_FAMILIES: tuple[str, ...] = tuple(TRAIN)
EVAL_FAMILIES: tuple[str, ...] = tuple(EVAL)
EVERYDAY_FAMILIES: tuple[str, ...] = tuple(
    EVERYDAY
)  # evaluation too: the solid things of the detection sets
DEV_FAMILIES: tuple[str, ...] = tuple(DEV)  # for model development: neither trained on nor reported

FAMILIES: dict[str, Callable[[Generator], Shape]] = {**TRAIN, **EVAL, **EVERYDAY, **DEV}

# Families that look right in any orientation; the others stay within a small tilt.
ANY_ANGLE = frozenset(
    {
        "blob",
        "box",
        "wheel",
        "rope",
        "comb",
        "chain",
        "star",
        "gear",
        "key",
        "holed_leaf",
        "sketch",
        "insect",
    }
    | {"spider_web", "feather", "scissors", "butterfly", "racket"}
    | {"airplane", "turtle"}
)
