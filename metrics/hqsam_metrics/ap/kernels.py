"""Loops of AP that are compiled where they pay off (see `hqsam_base.compiled`).

Each does what a plain path of its caller does, in the same order of floating-point operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hqsam_base.compiled import jit

_EPS = np.spacing(1)
_LANES = 64  # resamples that go through the detections together: their sums stay in the cache


@jit(
    "void(int32[::1], uint16[::1], uint16[::1], int64[:, ::1], int64[:, ::1], uint8[:, ::1],"
    " int64, float64[::1], float64[:, ::1])"
)
def weighted_precision(
    image: Any,
    hit: Any,
    void: Any,
    rows: Any,
    counts: Any,
    weights: Any,
    n_thresholds: Any,
    recalls: Any,
    out: Any,
) -> None:
    """Computes the mean interpolated precision of every category and resample.

    Args:
        image: int32 [n], image of each detection; by category, falling score.
        hit: uint16 [n], bit t: true positive at threshold t.
        void: uint16 [n], bit t: does not count at threshold t.
        rows: int64 [2, K], first detection of each category and one past its last.
        counts: int64 [K, R], ground truth of each category in each resample.
        weights: uint8 [I, R], how often each image counts.
        n_thresholds: T.
        recalls: float64 [Q], rising from 0.
        out: float64 [K, R], filled; 0 where there is no ground truth.
    """
    n_recalls, n_resamples = len(recalls), weights.shape[1]
    everywhere = (1 << n_thresholds) - 1
    seen = np.zeros(_LANES, np.int64)
    skipped = np.zeros((n_thresholds, _LANES), np.int64)
    true = np.zeros((n_thresholds, _LANES), np.int64)
    place = np.zeros((n_thresholds, _LANES), np.int64)
    need = np.zeros((_LANES, n_recalls + 1), np.int64)
    best = np.zeros((n_thresholds, _LANES, n_recalls))
    for first in range(0, n_resamples, _LANES):
        lanes = min(_LANES, n_resamples - first)
        for k in range(rows.shape[1]):
            any_hit = 0
            for d in range(rows[0, k], rows[1, k]):
                any_hit |= hit[d]
            for r in range(lanes):
                out[k, first + r] = 0.0
            if any_hit == 0:
                continue
            # The least number of hits that reaches each recall, by the division that defines it.
            for r in range(lanes):
                count = counts[k, first + r]
                for q in range(n_recalls):
                    least = np.int64(recalls[q] * count)
                    while count > 0 and least / count < recalls[q]:
                        least += 1
                    while count > 0 and least > 0 and (least - 1) / count >= recalls[q]:
                        least -= 1
                    need[r, q] = least
                need[r, n_recalls] = np.int64(1) << 62
            seen[:] = 0
            for t in range(n_thresholds):
                if any_hit >> t & 1:
                    skipped[t] = 0
                    true[t] = 0
                    place[t] = 0
                    best[t] = 0.0
            for d in range(rows[0, k], rows[1, k]):
                if void[d] == everywhere:
                    continue
                own = weights[image[d], first : first + lanes]
                for r in range(lanes):
                    seen[r] += own[r]
                if void[d]:
                    for t in range(n_thresholds):
                        if void[d] >> t & 1:
                            for r in range(lanes):
                                skipped[t, r] += own[r]
                if hit[d]:
                    for t in range(n_thresholds):
                        if hit[d] >> t & 1:
                            for r in range(lanes):
                                if own[r]:
                                    true[t, r] += own[r]
                                    precision = true[t, r] / (seen[r] - skipped[t, r] + _EPS)
                                    at = place[t, r]
                                    while true[t, r] >= need[r, at + 1]:
                                        at += 1
                                    place[t, r] = at
                                    if precision > best[t, r, at]:
                                        best[t, r, at] = precision
            for t in range(n_thresholds):
                if any_hit >> t & 1:
                    for r in range(lanes):
                        if counts[k, first + r] > 0:
                            top, total = 0.0, 0.0
                            # What is reached at a recall is the best of it and of all above it.
                            for q in range(n_recalls - 1, -1, -1):
                                top = max(top, best[t, r, q])
                                total += top
                            out[k, first + r] += total / n_recalls / n_thresholds


@jit(
    "void(int64[::1], int64[::1], float64[::1], boolean[:, ::1], boolean[::1], float64[::1],"
    " int64[:, :, ::1])"
)
def match(
    begins: Any, gt: Any, value: Any, gt_ignore: Any, gt_crowd: Any, thresholds: Any, out: Any
) -> None:
    """Matches detections greedily (see `hqsam_metrics.ap.matching.match`).

    Args:
        begins: int64 [m + 1], first pair of each detection.
        gt: int64 [p], ground truth of each pair, rising within a detection.
        value: float64 [p].
        gt_ignore: bool [A, n_gt].
        gt_crowd: bool [n_gt].
        thresholds: float64 [T].
        out: int64 [A, T, m], filled.
    """
    n_bins, n_thresholds = len(gt_ignore), len(thresholds)
    taken = np.zeros((n_bins, n_thresholds, len(gt_crowd)), np.bool_)
    for d in range(len(begins) - 1):
        for a in range(n_bins):
            for t in range(n_thresholds):
                best = -1
                for k in range(begins[d], begins[d + 1]):
                    g = gt[k]
                    if value[k] < thresholds[t] or (taken[a, t, g] and not gt_crowd[g]):
                        continue
                    # Real before ignored, then the higher value, then the later one.
                    if best >= 0 and gt_ignore[a, g] != gt_ignore[a, gt[best]]:
                        if gt_ignore[a, g]:
                            continue
                    elif best >= 0 and value[k] < value[best]:
                        continue
                    best = k
                out[a, t, d] = -1
                if best >= 0:
                    out[a, t, d] = gt[best]
                    taken[a, t, gt[best]] = True
