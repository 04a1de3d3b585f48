"""Greedy matching of detections to ground truth, as COCOeval does it, for all groups at once.

A group is what is matched together: an image and a category, or an image when class-agnostic. The
k-th detections of all groups are handled in one step, for every area range and IoU threshold at
once; a detection that reaches no ground truth takes no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqsam_base import compiled
from hqsam_base.runs import Int

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

# COCOeval lowers a threshold of 1 by this much so that a perfect match still counts.
_TOP = 1 - 1e-10
KERNELS = "hqsam_metrics.ap.kernels"


@dataclass(frozen=True)
class Matches:
    """What the matching gave.

    Attributes:
        dt: int64 [m], the detections that could match anything (rising).
        gt: int64 [A, T, m], the ground truth taken by each, -1 for none, by area range and IoU
            threshold.
    """

    dt: Int
    gt: Int


@dataclass(frozen=True)
class _Round:
    """Pairs of one step: detection segments, ground truth, value, and rank of the value (for exact comparison)."""

    begin: Int
    segment: Int
    gt: Int
    value: Float
    rank: Int


def match(
    *,
    dt: Int,
    gt: Int,
    value: Float,
    group: Int,
    gt_ignore: Bool,
    gt_crowd: Bool,
    thresholds: Float,
) -> Matches:
    """Matches greedily in the order of the detections.

    A detection takes the free ground truth of the highest IoU at or above the threshold, the later
    one of equals; ignored ground truth only when no other fits; a crowd can be taken again and
    again (pycocotools `evaluateImg`).

    Args:
        dt: int64 [p], detection of each pair; detections of a group are numbered in falling score.
        gt: int64 [p], ground truth of each pair; numbered in the order of the file inside a group.
        value: float64 [p], the IoU used for matching.
        group: int64 [n_dt], group of each detection; equal groups are neighbours.
        gt_ignore: bool [A, n_gt], by area range.
        gt_crowd: bool [n_gt].
        thresholds: float64 [T].

    Returns:
        The matches.
    """
    thresholds = np.minimum(thresholds, _TOP)
    keep = np.flatnonzero(value >= thresholds.min(initial=2.0))
    dt, gt, value = dt[keep], gt[keep], value[keep]
    code = dt * gt_ignore.shape[1] + gt
    if not (code[1:] > code[:-1]).all():
        order = np.lexsort((gt, dt))
        dt, gt, value = dt[order], gt[order], value[order]
    active, begins, segment = np.unique(dt, return_index=True, return_inverse=True)
    out = np.full((len(gt_ignore), len(thresholds), len(active)), -1, np.int64)
    if not len(active):
        return Matches(active, out)
    kernels = compiled.loaded(KERNELS)
    if kernels is not None:
        ends = np.append(begins, len(dt)).astype(np.int64)
        ignore = np.ascontiguousarray(gt_ignore)
        kernels.match(ends, gt, value, ignore, gt_crowd, thresholds, out)
        return Matches(active, out)
    rank = np.unique(value, return_inverse=True)[1].reshape(-1).astype(np.int64) + 1
    # Each one's running number in its group, whose members are neighbours.
    of = group[active]
    first = np.flatnonzero(np.append(True, of[1:] != of[:-1]))
    step = np.arange(len(of)) - np.repeat(first, np.diff(np.append(first, len(of))))
    taken = np.zeros((len(gt_ignore), len(thresholds), gt_ignore.shape[1]), bool)
    by_step = np.argsort(step[segment], kind="stable")
    cuts = np.flatnonzero(np.diff(step[segment][by_step])) + 1
    for part in np.split(by_step, cuts):
        mine = segment[part]
        begin = np.flatnonzero(np.append(True, mine[1:] != mine[:-1]))
        one = _Round(begin, mine, gt[part], value[part], rank[part])
        _match_round(one, out, taken, gt_ignore, gt_crowd, thresholds)
    return Matches(active, out)


def _match_round(
    one: _Round, out: Int, taken: Bool, gt_ignore: Bool, gt_crowd: Bool, thresholds: Float
) -> None:
    free = ~taken[:, :, one.gt] | gt_crowd[one.gt]
    free &= one.value >= thresholds[:, None]
    # One integer orders the choices: real before ignored, then the IoU.
    first = np.int64(1) << 40
    key = one.rank + np.where(gt_ignore[:, one.gt], 0, first)
    key = np.where(free, key[:, None, :], 0)
    best = np.maximum.reduceat(key, one.begin, axis=2)
    size = np.diff(np.append(one.begin, len(one.gt)))
    is_best = free & (key == np.repeat(best, size, axis=2))
    place = np.where(is_best, np.arange(len(one.gt)), -1)
    winner = np.maximum.reduceat(place, one.begin, axis=2)
    area, threshold, at = np.nonzero(winner >= 0)
    chosen = one.gt[winner[area, threshold, at]]
    taken[area, threshold, chosen] = True
    out[area, threshold, one.segment[one.begin][at]] = chosen
