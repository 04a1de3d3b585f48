"""The point prompt: random pixels of the object, all positive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.formats.masks import FOREGROUND
from hqsam_datasets.prompts.base import (
    U8,
    BoolMask,
    Drawn,
    PlanOptions,
    PromptArrays,
    PromptKind,
    Target,
)

POINTS = 10
"""Points of an evaluation prompt: as many as the official training uses."""


def sample_points(
    mask: NDArray[Any],
    *,
    n: int,
    rng: np.random.Generator | None = None,
    permutation: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Draw `n` random pixels above 128, uniformly, without repetition.

    Args:
        mask: [H, W], values 0..255.
        n: points wanted; a mask with fewer candidates gives all of them, in random order.
        rng: draws the points.
        permutation: an order of the candidates (listed row by row) to use instead of drawing one.

    Returns:
        int64 [<= n, 2], (x, y) pixel indices.

    Source: SysCV/sam-hq, train/utils/misc.py, `masks_sample_points`.
    """
    width = mask.shape[1]
    candidates = np.flatnonzero(mask > FOREGROUND)
    if permutation is None:
        if rng is None:
            raise ValueError("give a generator or a permutation")
        permutation = rng.choice(len(candidates), size=min(n, len(candidates)), replace=False)
    chosen = candidates[np.asarray(permutation[:n], dtype=np.int64)]
    return np.stack([chosen % width, chosen // width], axis=1).astype(np.int64)


class PointPrompt(PromptKind):
    """See the module."""

    def plan(self, target: Target, *, rng: np.random.Generator, options: PlanOptions) -> Drawn:
        """Draw points where there are enough pixels; the official code drops those of the whole batch."""
        points: list[list[int]] = []
        if target.n_foreground >= options.points:
            points = sample_points(target.shown, n=options.points, rng=rng).tolist()
        return Drawn(values={"points": points}, offered=bool(points))

    def planned(self, record: Mapping[str, Any], picture: Callable[[str], U8]) -> PromptArrays:
        """Read the plan's ``points``."""
        points = np.asarray(record["points"], np.float32).reshape(-1, 2)
        return PromptArrays(points=points, labels=np.ones(len(points), np.int64))

    def of_mask(self, mask: BoolMask, *, rng: np.random.Generator) -> PromptArrays | None:
        """Draw `POINTS` points, or as many as there are pixels."""
        points = sample_points(mask * np.uint8(255), n=POINTS, rng=rng)
        if not len(points):
            return None
        return PromptArrays(points=points.astype(np.float64), labels=np.ones(len(points), np.int64))


PROMPT = PointPrompt("point", "point", ("points",), turn=0)
