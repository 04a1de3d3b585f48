"""A toy kind of prompt: a stroke along the object's widest row, a point every eight pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.prompts import Drawn, Marks, PlanOptions, PromptArrays, PromptKind, Target


def stroke(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Points (x, y), float32 [N, 2]; none in an empty mask."""
    row = int(mask.sum(axis=1).argmax())
    columns = np.flatnonzero(mask[row])[::8]
    return np.stack([columns, np.full_like(columns, row)], axis=1).astype(np.float32)


def _arrays(points: NDArray[Any]) -> PromptArrays:
    return PromptArrays(points=points, labels=np.ones(len(points), np.int64))


class Scribble(PromptKind):
    """See the module."""

    def plan(self, target: Target, *, rng: np.random.Generator, options: PlanOptions) -> Drawn:
        points = stroke(target.shown > 128)
        return Drawn(values={"scribble": points.tolist()}, offered=len(points) > 0)

    def planned(
        self, record: Mapping[str, Any], picture: Callable[[str], NDArray[np.uint8]]
    ) -> PromptArrays:
        return _arrays(np.asarray(record["scribble"], np.float32).reshape(-1, 2))

    def of_mask(self, mask: NDArray[np.bool_], *, rng: np.random.Generator) -> PromptArrays | None:
        return _arrays(stroke(mask)) if mask.any() else None

    def marks(self, arrays: PromptArrays) -> Marks:
        return Marks(lines=(arrays.points,))


PROMPT = Scribble("scribble", "scribble", ("points",))
