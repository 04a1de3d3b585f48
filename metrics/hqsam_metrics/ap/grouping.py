"""Order of detections inside the groups that are matched together."""

from __future__ import annotations

import numpy as np

from hqsam_base.runs import Int, ragged_arange
from hqsam_metrics.ap.instances import Bool, Float


def rank_in_runs(group: Int) -> Int:
    """Returns the running number inside runs of equal values: int64 [n]."""
    if not len(group):
        return np.zeros(0, np.int64)
    begins = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    return ragged_arange(np.diff(np.append(begins, len(group))))


def order_detections(
    rows: Int, group: Int, category: Int, score: Float, limit: int
) -> tuple[Int, Int, Int]:
    """Sorts detections by group and falling score and cuts each group.

    Ties: by category (it matters when class-agnostic), then by place in the file, as COCOeval's
    stable sorts do.

    Args:
        rows: int64 [n], place in the file.
        group: int64 [n].
        category: int64 [n].
        score: float64 [n].
        limit: detections kept of each group.

    Returns:
        rows, group and rank (0 for the best) of those kept, sorted.
    """
    order = np.lexsort((rows, category, -score, group))
    rows, group = rows[order], group[order]
    rank = rank_in_runs(group)
    inside = rank < limit
    return rows[inside], group[inside], rank[inside]


def keep_best_per_image(image: Int, score: Float, limit: int) -> Bool:
    """Returns which detections are among the `limit` best of their image; ties: the earlier in the file."""
    order = np.lexsort((np.arange(len(score)), -score, image))
    keep = np.zeros(len(score), bool)
    keep[order[rank_in_runs(image[order]) < limit]] = True
    return keep


def candidate_pairs(dt_group: Int, gt_group: Int) -> tuple[Int, Int]:
    """Returns all pairs of detections and ground truth of equal group; both are sorted by group."""
    begin = np.searchsorted(gt_group, dt_group, side="left")
    count = np.searchsorted(gt_group, dt_group, side="right") - begin
    return np.repeat(np.arange(len(dt_group)), count), np.repeat(begin, count) + ragged_arange(
        count
    )


def first_best(j: Int, iou: Float) -> Int:
    """Returns, for each distinct j, the place of its largest IoU (the first of equals)."""
    order = np.lexsort((np.arange(len(j)), -iou, j))
    best: Int = order[rank_in_runs(j[order]) == 0]
    return best
