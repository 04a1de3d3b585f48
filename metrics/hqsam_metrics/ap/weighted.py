"""Precision and recall with a weight for each image, for many vectors of weights at once.

An interpolated precision changes at true positives only, so the other detections are but counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base import compiled
from hqsam_base.runs import Int
from hqsam_metrics.ap.accumulate import EVERYWHERE, IOU_THRESHOLDS, RECALL_THRESHOLDS

Float = NDArray[np.float64]
Bits = NDArray[np.uint16]

# Weights looked at in one step: bounds the memory to some ten MB.
_BLOCK = 1 << 19
# Weights of detections from which numba's import (0.3 s) pays off.
_WORTH = 4_000_000


def category_precision(
    image: NDArray[np.int32], hit: Bits, void: Bits, rows: Int, counts: Float, weights: Any
) -> Float:
    """Returns the mean precision over IoU thresholds and recalls of each category and vector of weights.

    Args:
        image: int32 [n], image of each detection; by category, in falling score.
        hit: uint16 [n], bit t: true positive at IoU threshold t.
        void: uint16 [n], bit t: does not count at threshold t.
        rows: int64 [2, K], first detection of each category and one past its last.
        counts: float64 [K, R], weighted ground truth of each category.
        weights: [I, R], uint8 (compiled where it pays off) or float64, how often each image counts.

    Returns:
        float64 [K, R], 0 without a true positive or without ground truth.
    """
    small = weights.dtype == np.uint8
    work = len(image) * weights.shape[1]
    if small and compiled.ready("hqsam_metrics.ap.kernels", size=work, worth=_WORTH):
        from hqsam_metrics.ap import kernels

        out = np.empty(counts.shape)
        # Columns of a Parquet file cannot be written to, which is another type to the compiler.
        columns: list[Any] = [np.require(one, None, ["C", "W"]) for one in (image, hit, void)]
        kernels.weighted_precision(
            columns[0],
            columns[1],
            columns[2],
            rows,
            counts.astype(np.int64),
            np.ascontiguousarray(weights),
            len(IOU_THRESHOLDS),
            RECALL_THRESHOLDS,
            out,
        )
        return out
    out = np.zeros(counts.shape)
    for k, (begin, end) in enumerate(rows.T.tolist()):
        mine = slice(begin, end)
        if hit[mine].any():
            out[k] = _one_category(image[mine], hit[mine], void[mine], counts[k], weights)
    return out


def _one_category(image: Any, hit: Bits, void: Bits, count: Float, weights: Any) -> Float:
    """Returns the mean precision of one category for each vector of weights: float64 [R]."""
    keep = void != EVERYWHERE
    image, hit, void = image[keep], hit[keep], void[keep]
    some = np.flatnonzero(hit)
    if not len(some):
        return np.zeros(len(count))
    kind = np.int32 if weights.dtype == np.uint8 else np.float64
    # Detections up to each true positive of any threshold: between two of them sums are enough.
    cuts = np.append(0, some[:-1] + 1)
    last = int(some[-1]) + 1
    out = np.empty(len(count))
    step = max(1, _BLOCK // last)
    for begin in range(0, len(count), step):
        lanes = slice(begin, begin + step)
        own = weights[image[:last], lanes]
        seen = np.cumsum(np.add.reduceat(own, cuts, axis=0, dtype=kind), axis=0)
        out[lanes] = _lanes(own, hit[:last], void[:last], some, seen, count[lanes])
    return out


def _lanes(own: Any, hit: Bits, void: Bits, some: Int, seen: Any, count: Float) -> Float:
    """Returns the mean precision of one category for some vectors of weights.

    Args:
        own: [n, R], weights of the image of each detection.
        hit: uint16 [n].
        void: uint16 [n].
        some: int64 [m], detections that are a true positive at some threshold.
        seen: [m, R], weights of all detections up to each of these.
        count: float64 [R].
    """
    total = np.zeros(len(count))
    defined = np.where(count > 0, count, np.inf)
    for t in range(len(IOU_THRESHOLDS)):
        mine = np.flatnonzero(hit[some] >> np.uint16(t) & 1)
        if not len(mine):
            continue
        true = np.cumsum(own[some[mine]], axis=0, dtype=seen.dtype)
        counted = seen[mine]
        void_here = np.flatnonzero(void >> np.uint16(t) & 1)
        if len(void_here):
            skipped = np.zeros((len(void_here) + 1, len(count)), seen.dtype)
            np.cumsum(own[void_here], axis=0, out=skipped[1:])
            counted = counted - skipped[np.searchsorted(void_here, some[mine])]
        precision = true / (counted + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        reached = np.searchsorted(RECALL_THRESHOLDS, true / defined, side="right")
        total += (precision * np.diff(reached, axis=0, prepend=0)).sum(axis=0)
    return total / (len(RECALL_THRESHOLDS) * len(IOU_THRESHOLDS))
