"""Recall against boundary-IoU threshold (HQ-SAM supplement, Figure 4)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
# The decimals as written: 0.5 + 2 * 0.05 is not the number 0.6.
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
Compare = Literal["above", "at_or_above"]


def recall_counts(
    values: Any, *, thresholds: Any = THRESHOLDS, compare: Compare = "above"
) -> NDArray[np.int64]:
    """Counts the values over each threshold: int64 [T]; counts of disjoint sets can be added.

    Args:
        values: [n] IoU or boundary IoU; NaN (undefined) is over none.
        thresholds: [T].
        compare: "above": >, "at_or_above": >=.

    Raises:
        ValueError: `compare` is neither.
    """
    values = np.asarray(values, np.float64).reshape(-1, 1)
    limits = np.asarray(thresholds, np.float64)
    if compare not in ("above", "at_or_above"):
        raise ValueError(f"compare is {compare!r}, must be 'above' or 'at_or_above'")
    over = values > limits if compare == "above" else values >= limits
    counts: NDArray[np.int64] = np.sum(over, axis=0, dtype=np.int64)
    return counts


def recall_curve(values: Any, *, thresholds: Any = THRESHOLDS, compare: Compare = "above") -> Float:
    """Returns the fraction of values over each threshold: float64 [T]; NaN everywhere without values.

    Undefined values (NaN) count as not over any threshold and stay in the denominator.
    """
    values = np.asarray(values, np.float64).reshape(-1)
    counts = recall_counts(values, thresholds=thresholds, compare=compare)
    return counts / len(values) if len(values) else np.full(len(counts), np.nan)
