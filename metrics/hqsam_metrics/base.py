"""The seam of the metrics: what a file in `scores/` must offer, and how it is found.

A metric of the pipeline is one module `hqsam_metrics/scores/<name>.py`, named like the `metric` key of a benchmark's
`score` section in params.yaml. It exposes one constant, ``SCORE``, that satisfies `Score`, and its ``VERSION``.
"""

from __future__ import annotations

import hashlib
import json
import math
import pkgutil
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress

if TYPE_CHECKING:
    from hqsam_metrics.benchmark_data import Predictions

ScoreRule = Literal["none", "detector", "detector_x_iou"]


@dataclass(frozen=True)
class ScoreOptions:
    """The section `benchmarks.<name>.score` of params.yaml.

    Attributes:
        metric: name of the file in `scores/`.
        version: the metric's version; a change to the metric's code raises it, so that only scores are redone.
        output: which system of the run is HQ-SAM in this benchmark's protocol.
        dilation_ratio: width of the boundary band as a fraction of the image diagonal.
        strict_dilation_ratio: a second ratio, reported with the suffix `_strict`.
        score_rule: confidence of a detection: the detector's, or the detector's times the predicted IoU.
        class_agnostic: match whatever the category.
        max_dets: detections that count, an image (LVIS) or an image and category (COCO); None: the metric's own.
    """

    metric: str
    version: int
    output: str = "hq_token"
    dilation_ratio: float = 0.02
    strict_dilation_ratio: float | None = None
    score_rule: ScoreRule = "none"
    class_agnostic: bool = False
    max_dets: int | None = None

    def __post_init__(self) -> None:
        """Checks values; types beyond these are the caller's."""
        for name in ("dilation_ratio", "strict_dilation_ratio"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 < value < 1):
                raise UserError(f"score.{name} is {value}: it must lie between 0 and 1")
        if self.score_rule not in get_args(ScoreRule):
            allowed = ", ".join(get_args(ScoreRule))
            raise UserError(f"score.score_rule is {self.score_rule!r}: it must be one of {allowed}")
        if self.max_dets is not None and self.max_dets < 1:
            raise UserError(f"score.max_dets is {self.max_dets}: it must be at least 1")

    @property
    def ratios(self) -> dict[str, float]:
        """Suffix of the metric names and dilation ratio: `_B`, and `_B_strict` when wanted."""
        out = {"_B": self.dilation_ratio}
        return out if self.strict_dilation_ratio is None else {**out, "_B_strict": self.strict_dilation_ratio}


@dataclass(frozen=True)
class Units:
    """Per-instance values, one row each, for overlays and the paired bootstrap.

    Attributes:
        key: image key.
        cluster: what is resampled: the image, or the video.
        unit: name of the instance.
        values: columns `iou`, `biou` and for DAVIS `j`, `f`: float64 [n], NaN where undefined.
    """

    key: list[str]
    cluster: list[str]
    unit: list[str]
    values: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Outcome:
    """What a metric gives: values (None: undefined), how many units there were and were scored, rows, warnings."""

    metrics: dict[str, float | None]
    n_expected: int
    n_scored: int
    units: Units
    warnings: list[str] = field(default_factory=list)


@runtime_checkable
class Score(Protocol):
    """A metric of the pipeline."""

    name: str
    version: int
    kind: str

    def protocol(self, options: ScoreOptions) -> dict[str, Any]:
        """Returns everything in this metric's rules that can move a number, for the protocol block."""
        ...

    def evaluate(self, data: Predictions, options: ScoreOptions, *, progress: Progress) -> Outcome:
        """Scores the predictions of one system for one set of prompts."""
        ...


def score_names() -> list[str]:
    """Returns the names of all metrics: the files of `scores/`."""
    from hqsam_metrics import scores

    return sorted(module.name for module in pkgutil.iter_modules(scores.__path__))


def load_score(name: str) -> Score:
    """Returns the metric of that name.

    Raises:
        UserError: there is none.
    """
    if name not in score_names():
        raise UserError(f"score.metric is {name!r}: there is no such metric; choose one of {', '.join(score_names())}")
    score = import_module(f"hqsam_metrics.scores.{name}").SCORE
    if not isinstance(score, Score):
        raise TypeError(f"hqsam_metrics.scores.{name}.SCORE does not satisfy the Score protocol")
    return score


def protocol_hash(protocol: dict[str, Any]) -> str:
    """Returns the first 16 hex digits of the SHA-256 of the protocol block's canonical JSON."""
    from hqsam_metrics.files import plain

    text = json.dumps(plain(protocol), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rules(score: str, version: int, **own: Any) -> dict[str, Any]:
    """Returns the part of the protocol block that every evaluation has, with the metric's `own` rules."""
    return {"evaluator": f"hqsam_metrics.{score}", "evaluator_version": version, **own}
