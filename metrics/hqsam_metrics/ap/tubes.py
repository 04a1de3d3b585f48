"""YouTube-VIS / HQ-YTVIS: AP of object tubes (one mask a frame), by mask and by boundary."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hqsam_base.processes import run_parts
from hqsam_base.progress import Progress, silent
from hqsam_base.runs import Int, ragged_arange
from hqsam_metrics.ap import accumulate
from hqsam_metrics.ap.decoding import check_unused, decode_shapes, load_kernels
from hqsam_metrics.ap.detection import BestMatches, Scored, best_of, join_best
from hqsam_metrics.ap.grouping import candidate_pairs, first_best, order_detections
from hqsam_metrics.ap.instances import Bool, Float
from hqsam_metrics.ap.options import TUBE_DILATION_RATIO
from hqsam_metrics.ap.tubes_io import Frames, Tubes, TubeTruth
from hqsam_metrics.masks.packed import Drawing, Shapes, intersections
from hqsam_metrics.masks.pairs import PairTable, divide, draw_for_bands, make_bands

LIMITS = (1, 10, 100)
BINS = accumulate.size_bins(128, 256)


@dataclass(frozen=True)
class Side:
    """Frames of the tubes of a video: masks, their drawing, band widths int64 [frames], frames of each tube.

    `banded` holds the frames whose bands count, None where they are these.
    """

    shapes: Shapes
    drawing: Drawing
    width: Int
    offsets: Int
    banded: Side | None = None

    def sums(self, values: Int, tube: Int, frames: Int) -> Int:
        """Sums `values` (one a frame) over the first `frames` frames of each tube."""
        total = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, out=total[1:])
        begin = self.offsets[tube]
        out: Int = total[begin + frames] - total[begin]
        return out


def tube_ious(a: Side, b: Side, i: Int, j: Int, *, boundary: bool) -> Float:
    """Returns the IoU of tube pairs: sum of intersections over sum of unions, over all frames.

    Args:
        a: first tubes.
        b: second tubes.
        i: int64 [m], tube of `a`.
        j: int64 [m], tube of `b`.
        boundary: use the boundary band of each (refined) frame instead of its mask.

    Returns:
        float64 [m], 0 where both tubes are empty.
    """
    if boundary:
        a, b = a.banded or a, b.banded or b
    frames = np.minimum(np.diff(a.offsets)[i], np.diff(b.offsets)[j])
    # The frames that both tubes have and show: pair number, frame of a, frame of b.
    pair = np.repeat(np.arange(len(i)), frames)
    step = ragged_arange(frames)
    fa, fb = a.offsets[i][pair] + step, b.offsets[j][pair] + step
    box_a, box_b = a.shapes.boxes[fa], b.shapes.boxes[fb]
    low = np.maximum(box_a[:, :2], box_b[:, :2])
    high = np.minimum(box_a[:, 2:], box_b[:, 2:])
    keep = np.flatnonzero((low < high).all(axis=1))
    pair, fa, fb = pair[keep], fa[keep], fb[keep]
    if boundary:
        bands_a, bands_b = make_bands(a.drawing, a.width), make_bands(b.drawing, b.width)
        counts_a, counts_b, planes = (
            bands_a.counts,
            bands_b.counts,
            (bands_a.planes, bands_b.planes),
        )
    else:
        counts_a, counts_b, planes = (
            a.shapes.areas,
            b.shapes.areas,
            (a.drawing.planes, b.drawing.planes),
        )
    common = intersections(*planes, fa, fb)
    inside = np.bincount(pair, weights=common, minlength=len(i)).astype(np.int64)
    return divide(inside, a.sums(counts_a, i, frames) + b.sums(counts_b, j, frames) - inside)


def side_of(tubes: Tubes, rows: Int, what: str) -> Side:
    """Decodes and draws some tubes.

    Args:
        tubes: of a file.
        rows: int64 [n], which; all of one video.
        what: names them in an error.

    Raises:
        UserError: a malformed run-length code.
    """
    where = f"{tubes.name}: a frame of {what}"
    refined = None if tubes.refined is None else _drawn(tubes.refined, rows, where)
    return replace(_drawn(tubes.frames, rows, where), banded=refined)


def _drawn(frames: Frames, rows: Int, where: str) -> Side:
    places, offsets = frames.take(rows)
    shapes = decode_shapes(frames.masks, places, where, frames.owner())
    drawing, widths = draw_for_bands(shapes, [TUBE_DILATION_RATIO])
    return Side(shapes, drawing, widths[0], offsets)


def pair_tubes(
    found: Side, real: Side, i: Int, j: Int, crowd: Bool, *, boundary: bool, per_instance: bool
) -> PairTable:
    """Returns the pairs of tubes that matter, with tube mask IoU and (if `boundary`) tube boundary IoU."""
    iou = tube_ious(found, real, i, j, boundary=False)
    keep = np.flatnonzero(iou >= (0.0 if per_instance else accumulate.IOU_THRESHOLDS[0]))
    i, j, iou = i[keep], j[keep], iou[keep]
    biou = np.full((1 if boundary else 0, len(i)), np.nan)
    if boundary:
        need = iou >= accumulate.IOU_THRESHOLDS[0]
        if per_instance:
            need[first_best(j, iou)] = True
        at = np.flatnonzero(need & ~crowd[j])
        biou[0, at] = tube_ious(found, real, i[at], j[at], boundary=True)
    return PairTable(i, j, iou, biou, iou)


@dataclass(frozen=True)
class _Job:
    """Sorted tubes of all videos and what is wanted."""

    truth: TubeTruth
    dt: Tubes
    rows: Int
    group: Int
    rank: Int
    gt_rows: Int
    gt_group: Int
    boundary: bool
    class_agnostic: bool
    per_instance: bool

    @property
    def n_categories(self) -> int:
        """Categories that are matched apart."""
        return 1 if self.class_agnostic else len(self.truth.category_ids)


def _score_video(job: _Job, video: int) -> tuple[list[accumulate.Partial], BestMatches | None]:
    gt, dt, n = job.truth.tubes, job.dt, job.n_categories
    agnostic = job.class_agnostic
    borders = [video * n, video * n + n]
    d = slice(*np.searchsorted(job.group, borders))
    at = slice(*np.searchsorted(job.gt_group, borders))
    rows, g = job.rows[d], job.gt_rows[at]
    found, real = side_of(dt, rows, "result"), side_of(gt, g, "annotation")
    i, j = candidate_pairs(job.group[d], job.gt_group[at])
    crowd = gt.crowd[g]
    pairs = pair_tubes(
        found, real, i, j, crowd, boundary=job.boundary, per_instance=job.per_instance
    )
    whole, sizes = np.arange(len(rows)), np.diff(found.offsets)
    present = (found.shapes.areas > 0).astype(np.int64)
    total = found.sums(found.shapes.areas, whole, sizes)
    units = accumulate.Units(
        dt_image=dt.video[rows],
        dt_category=np.zeros(len(rows), np.int64) if agnostic else dt.category[rows],
        dt_score=dt.score[rows],
        dt_rank=job.rank[d],
        dt_area=divide(total, found.sums(present, whole, sizes)),  # mean of the frames shown
        dt_lenient=np.zeros(len(rows), bool),
        gt_image=gt.video[g],
        gt_category=np.zeros(len(g), np.int64) if agnostic else gt.category[g],
        gt_area=gt.area[g],
        gt_ignore=gt.crowd[g],
        gt_crowd=gt.crowd[g],
    )
    values = [pairs.value(None), *([pairs.value(0)] if job.boundary else [])]
    parts = [
        accumulate.evaluate(units, pairs, value, n_categories=n, bins=BINS) for value in values
    ]
    return parts, best_of(pairs, job.rows[d], g, crowd) if job.per_instance else None


def score_tubes(
    truth: TubeTruth,
    dt: Tubes,
    *,
    boundary: bool = True,
    class_agnostic: bool = False,
    per_instance: bool = False,
    workers: int = 1,
    progress: Progress = silent,
) -> Scored:
    """Scores tubes as the HQ-YTVIS evaluator does.

    Args:
        truth: annotations.
        dt: results.
        boundary: also the tube boundary AP (second table), matched with min(tube mask IoU, tube
            boundary IoU).
        class_agnostic: match within a video whatever the category.
        per_instance: also the best detection of each ground truth tube.
        workers: processes; changes no number.
        progress: told how far the work is.

    Returns:
        Tables for mask and (if wanted) boundary.

    Raises:
        UserError: malformed masks.
    """
    load_kernels(len(dt.frames.masks))
    gt = truth.tubes
    n = 1 if class_agnostic else len(truth.category_ids)
    known = np.flatnonzero(dt.category >= 0)
    group = dt.video[known] * n + (0 if class_agnostic else dt.category[known])
    rows, group, rank = order_detections(
        known, group, dt.category[known], dt.score[known], LIMITS[-1]
    )
    where, used = f"{dt.name}: a frame of result", dt.frames.take(rows)[0]
    check_unused(
        dt.frames.masks, used, where, dt.frames.owner(), workers=workers, progress=progress
    )
    gt_group = gt.video * n + (0 if class_agnostic else gt.category)
    gt_rows = np.lexsort((np.arange(len(gt)), gt.category, gt_group))
    job = _Job(
        truth,
        dt,
        rows,
        group,
        rank,
        gt_rows,
        gt_group[gt_rows],
        boundary,
        class_agnostic,
        per_instance,
    )
    done = list(
        run_parts(_score_video, job, len(truth.video_ids), workers=workers, progress=progress)
    )
    partials = tuple(
        accumulate.merge([parts[kind] for parts, _ in done]) for kind in range(1 + boundary)
    )
    tables = tuple(
        accumulate.finish(partial, n_categories=n, limits=LIMITS, bins=BINS) for partial in partials
    )
    best = (
        join_best([matches for _, matches in done if matches is not None]) if per_instance else None
    )
    unknown = len(dt) - len(known)
    dropped = {"of a category that the ground truth does not have": unknown} if unknown else {}
    return Scored(tables, best, dropped, partials)
