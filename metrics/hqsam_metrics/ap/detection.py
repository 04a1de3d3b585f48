"""AP of instance masks against COCO or LVIS ground truth: order, cuts, chunks, workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hqsam_base import compiled
from hqsam_base.processes import run_parts
from hqsam_base.progress import Progress, silent
from hqsam_base.runs import Int, RleBatch
from hqsam_metrics.ap import accumulate, errors
from hqsam_metrics.ap.decoding import check_unused, decode_shapes, load_kernels
from hqsam_metrics.ap.grouping import (
    candidate_pairs,
    first_best,
    keep_best_per_image,
    order_detections,
)
from hqsam_metrics.ap.instances import Bool, Float, GroundTruth
from hqsam_metrics.ap.results import Results
from hqsam_metrics.masks.packed import KERNELS, Shapes
from hqsam_metrics.masks.pairs import PairTable, pair_ious

# A chunk is bounded by masks, by the bytes of their codes (so that its arrays stay in the
# processor's cache: ten times the size is 1.4 times as slow) and by pixels of whole images (an
# upper bound of what is drawn).
_CHUNK_MASKS = 1024
_CHUNK_BYTES = 160_000
_CHUNK_PIXELS = 1 << 29
# Compiled loops take one mask after the other: larger chunks only save calls.
_COMPILED_CHUNK = 8


@dataclass(frozen=True)
class Measure:
    """One AP that is wanted: mask AP (`ratio` None) or boundary AP at a dilation ratio, with its size bins."""

    ratio: float | None
    bins: tuple[accumulate.AreaRange, ...]


@dataclass(frozen=True)
class Plan:
    """How detections are scored.

    Attributes:
        measures: the APs wanted; they share decoding and IoUs.
        limits: limits of detections per group at which recall is given, rising; the last one cuts.
        class_agnostic: match within an image whatever the category.
        image_limit: keep only the best so many detections of an image over all categories, before
            anything else (LVIS).
        per_instance: also find the best detection of each ground truth.
        errors: with `per_instance`: also say what kind of error each detection is, by mask IoU and
            by boundary IoU at the first ratio.
    """

    measures: tuple[Measure, ...]
    limits: tuple[int, ...]
    class_agnostic: bool = False
    image_limit: int | None = None
    per_instance: bool = False
    errors: bool = False

    @property
    def ratios(self) -> tuple[float, ...]:
        """The distinct dilation ratios."""
        return tuple(dict.fromkeys(m.ratio for m in self.measures if m.ratio is not None))


@dataclass(frozen=True)
class BestMatches:
    """For each ground truth that is no crowd: the best detection of its group by mask IoU.

    Attributes:
        gt: int64 [m], row in the ground truth.
        iou: float64 [m], 0 without any.
        biou: float64 [m], boundary IoU of the same pair at the first ratio of the plan.
        dt: int64 [m], row of the detection in the results, -1 where none overlaps.
    """

    gt: Int
    iou: Float
    biou: Float
    dt: Int


@dataclass(frozen=True)
class Scored:
    """What scoring gives.

    Attributes:
        tables: for each measure of the plan.
        best: best matches, if wanted.
        dropped: how many detections were left out, by reason.
        partials: the matches of all images, for each measure.
        errors: the kinds of error, by mask and by boundary IoU, if wanted.
    """

    tables: tuple[accumulate.Tables, ...]
    best: BestMatches | None
    dropped: dict[str, int]
    partials: tuple[accumulate.Partial, ...]
    errors: tuple[errors.Found, ...] = ()


@dataclass(frozen=True)
class _Job:
    """Sorted rows: everything a chunk needs. Chunks are ranges of images."""

    gt: GroundTruth
    dt: Results
    plan: Plan
    dt_rows: Int
    dt_group: Int
    dt_rank: Int
    gt_rows: Int
    gt_group: Int
    chunks: list[tuple[int, int]]


def _prepare(gt: GroundTruth, dt: Results, plan: Plan) -> tuple[_Job, dict[str, int]]:
    """Orders what takes part; also returns counts of the detections that do not."""
    keep = np.ones(len(dt), bool)
    dropped: dict[str, int] = {}
    if plan.image_limit is not None:
        keep &= keep_best_per_image(dt.image, dt.score, plan.image_limit)
        dropped[f"below the best {plan.image_limit} of their image"] = int((~keep).sum())
    unknown = keep & (dt.category < 0)
    dropped["of a category that the ground truth does not have"] = int(unknown.sum())
    keep &= ~unknown
    if gt.federation is not None:
        code = dt.image * len(gt.category_ids) + dt.category
        unverified = keep & ~np.isin(code, gt.federation.checked)
        dropped["of a category that was not verified in the image"] = int(unverified.sum())
        keep &= ~unverified
    rows = np.flatnonzero(keep)
    n = 1 if plan.class_agnostic else len(gt.category_ids)
    category = dt.category[rows]
    group = dt.image[rows] * n + (0 if plan.class_agnostic else category)
    rows, group, rank = order_detections(rows, group, category, dt.score[rows], plan.limits[-1])
    gt_group = gt.image * n + (0 if plan.class_agnostic else gt.category)
    gt_rows = np.lexsort((np.arange(len(gt.image)), gt.category, gt_group))
    chunks = _chunks(gt, dt, rows, gt_rows)
    job = _Job(gt, dt, plan, rows, group, rank, gt_rows, gt_group[gt_rows], chunks)
    return job, {why: count for why, count in dropped.items() if count}


def _chunks(gt: GroundTruth, dt: Results, dt_rows: Int, gt_rows: Int) -> list[tuple[int, int]]:
    """Divides the images into ranges of bounded work; an image is never divided."""
    n = len(gt.images)
    masks, n_bytes = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for image, codes, rows in ((dt.image, dt.masks, dt_rows), (gt.image, gt.masks, gt_rows)):
        masks += np.bincount(image[rows], minlength=n)
        n_bytes += np.bincount(image[rows], np.diff(codes.offsets)[rows], minlength=n).astype(
            np.int64
        )
    work = np.stack([masks, n_bytes, masks * gt.images.heights * gt.images.widths], axis=1)
    scale = 1 if compiled.loaded(KERNELS) is None else _COMPILED_CHUNK
    limits = np.array([scale * _CHUNK_MASKS, scale * _CHUNK_BYTES, _CHUNK_PIXELS])
    out: list[tuple[int, int]] = []
    begin, done = 0, np.zeros(3, np.int64)
    for i in range(n):
        if i > begin and (done + work[i] > limits).any():
            out.append((begin, i))
            begin, done = i, np.zeros(3, np.int64)
        done = done + work[i]
    return [*out, (begin, n)]


@dataclass(frozen=True)
class _Part:
    """What one range of images gives."""

    partials: list[accumulate.Partial]
    best: BestMatches | None
    errors: list[errors.Found]


def _chunk(job: _Job, number: int) -> _Part:
    """Scores one range of images."""
    gt, dt, plan = job.gt, job.dt, job.plan
    n = 1 if plan.class_agnostic else len(gt.category_ids)
    first, last = (border * n for border in job.chunks[number])
    d = slice(*np.searchsorted(job.dt_group, [first, last]))
    g = slice(*np.searchsorted(job.gt_group, [first, last]))
    dt_rows, gt_rows = job.dt_rows[d], job.gt_rows[g]
    found = _decode(dt.masks, dt_rows, f"{dt.name}: result", dt.row)
    real = _decode(gt.masks, gt_rows, f"{gt.name}: annotation id", gt.ids)
    areas = (
        np.asarray(found.shapes.areas[found.place], np.float64)
        if dt.area is None
        else dt.area[dt_rows]
    )
    dt_group, gt_group = job.dt_group[d], job.gt_group[g]
    # An error of class is found between classes: then all pairs of an image are looked at.
    size = n if plan.errors else 1
    i, j = candidate_pairs(dt_group // size, gt_group // size)
    there = np.ones(len(dt_rows), bool), np.ones(len(gt_rows), bool)
    if gt.federation is not None:
        # Detections and annotations without area vanish in LVIS, whatever the area rule: a box
        # without a mask stays.
        there = areas > 0, gt.area[gt_rows] > 0
        keep = there[0][i] & there[1][j]
        i, j = i[keep], j[keep]
    every = _pairs(found, real, i, j, (dt_group, gt_group), gt.crowd[gt_rows], plan)
    pairs = every.take(dt_group[every.dt] == gt_group[every.gt]) if plan.errors else every
    best = best_of(pairs, dt_rows, gt_rows, gt.crowd[gt_rows]) if plan.per_instance else None
    every, pairs = (p.numbered(*(np.cumsum(side) - 1 for side in there)) for p in (every, pairs))
    part = _Part([], best, [])
    for measure in plan.measures:
        boundary = measure.ratio is not None
        units = drop_empty(_units(job, d, dt_rows, gt_rows, areas, boundary=boundary), *there)
        ratio = None if measure.ratio is None else plan.ratios.index(measure.ratio)
        crowds = gt.federation is None
        value = pairs.value(ratio, crowds=crowds)
        part.partials.append(
            accumulate.evaluate(units, pairs, value, n_categories=n, bins=measure.bins)
        )
        if plan.errors and not ratio:  # the mask, and the boundary at the first ratio
            part.errors.append(
                errors.classify(
                    units,
                    every,
                    every.value(ratio, crowds=crowds),
                    row=dt_rows[there[0]],
                    n_categories=n,
                )
            )
    return part


@dataclass(frozen=True)
class _Decoded:
    """Masks in the order of their file (so that no bytes are moved), and where each wanted one is: int64 [m]."""

    shapes: Shapes
    place: Int

    def wanted(self) -> Int:
        """Returns which wanted mask each of `shapes` is."""
        out = np.empty_like(self.place)
        out[self.place] = np.arange(len(self.place))
        return out


def _decode(masks: RleBatch, rows: Int, describe: str, numbers: Int) -> _Decoded:
    order = np.sort(rows)
    return _Decoded(decode_shapes(masks, order, describe, numbers), np.searchsorted(order, rows))


def _pairs(
    found: _Decoded,
    real: _Decoded,
    i: Int,
    j: Int,
    groups: tuple[Int, Int],
    crowd: Bool,
    plan: Plan,
) -> PairTable:
    """Computes the IoUs of the pairs (i, j) of wanted masks, whose groups are given."""
    floor = 0.0 if plan.per_instance else float(accumulate.IOU_THRESHOLDS[0])
    at = real.wanted()
    dt_group, gt_group = groups[0][found.wanted()], groups[1][at]

    def between_classes(i: Int, j: Int, iou: Float) -> Bool:
        need: Bool = iou >= errors.ABOUT
        own = np.flatnonzero(dt_group[i] == gt_group[j])
        need[own] |= _wanted(i[own], j[own], iou[own])
        return need

    wanted = None if not plan.per_instance else between_classes if plan.errors else _wanted
    table = pair_ious(
        found.shapes,
        real.shapes,
        found.place[i],
        real.place[j],
        crowd=crowd[at],
        floor=floor,
        ratios=plan.ratios,
        wanted=wanted,
    )
    return table.numbered(found.wanted(), at)


def drop_empty(units: accumulate.Units, dt_keep: Bool, gt_keep: Bool) -> accumulate.Units:
    """Removes detections and ground truth (LVIS: those without area)."""
    columns: dict[str, Any] = {}
    for key, values in vars(units).items():
        columns[key] = values[dt_keep if key.startswith("dt_") else gt_keep]
    return accumulate.Units(**columns)


def _units(
    job: _Job, d: slice, dt_rows: Int, gt_rows: Int, areas: Float, *, boundary: bool
) -> accumulate.Units:
    gt, dt = job.gt, job.dt
    ignore, crowd = gt.treated(boundary=boundary)
    lenient = np.zeros(len(dt_rows), bool)
    if gt.federation is not None:
        code = dt.image[dt_rows] * len(gt.category_ids) + dt.category[dt_rows]
        lenient = np.isin(code, gt.federation.not_exhaustive)
    agnostic = job.plan.class_agnostic
    return accumulate.Units(
        dt_image=dt.image[dt_rows],
        dt_category=np.zeros(len(dt_rows), np.int64) if agnostic else dt.category[dt_rows],
        dt_score=dt.score[dt_rows],
        dt_rank=job.dt_rank[d],
        dt_area=areas,
        dt_lenient=lenient,
        gt_image=gt.image[gt_rows],
        gt_category=np.zeros(len(gt_rows), np.int64) if agnostic else gt.category[gt_rows],
        gt_area=gt.area[gt_rows],
        gt_ignore=ignore[gt_rows],
        gt_crowd=crowd[gt_rows],
    )


def _wanted(i: Int, j: Int, iou: Float) -> Bool:
    need: Bool = iou >= accumulate.IOU_THRESHOLDS[0]
    need[first_best(j, iou)] = True
    return need


def best_of(pairs: PairTable, dt_rows: Int, gt_rows: Int, crowd: Bool) -> BestMatches:
    """Returns the best match of each ground truth that is no crowd.

    Args:
        pairs: of places in the two that follow.
        dt_rows: int64 [d], rows of the detections.
        gt_rows: int64 [g], rows of the ground truth.
        crowd: bool [g].
    """
    iou, biou = np.zeros(len(gt_rows)), np.zeros(len(gt_rows))
    row = np.full(len(gt_rows), -1, np.int64)
    at = first_best(pairs.gt, pairs.iou)
    iou[pairs.gt[at]] = pairs.iou[at]
    row[pairs.gt[at]] = np.where(pairs.iou[at] > 0, dt_rows[pairs.dt[at]], -1)
    if len(pairs.biou):
        biou[pairs.gt[at]] = pairs.biou[0, at]
    return BestMatches(gt_rows[~crowd], iou[~crowd], biou[~crowd], row[~crowd])


def score_detections(
    gt: GroundTruth, dt: Results, plan: Plan, *, workers: int = 1, progress: Progress = silent
) -> Scored:
    """Scores detections.

    Args:
        gt: annotations.
        dt: results.
        plan: what is wanted.
        workers: processes; changes no number.
        progress: told how far the work is.

    Returns:
        Tables for each measure, and the best matches when the plan wants them.

    Raises:
        UserError: malformed masks.
    """
    parts, dropped = _collect(gt, dt, plan, workers, progress)
    partials = _merged(parts, plan)
    n = 1 if plan.class_agnostic else len(gt.category_ids)
    tables = tuple(
        accumulate.finish(partial, n_categories=n, limits=plan.limits, bins=measure.bins)
        for partial, measure in zip(partials, plan.measures, strict=True)
    )
    best = [part.best for part in parts if part.best is not None]
    found = zip(*(part.errors for part in parts), strict=True)
    return Scored(
        tables,
        join_best(best) if plan.per_instance else None,
        dropped,
        tuple(partials),
        tuple(errors.join(one) for one in found),
    )


def partial_results(
    gt: GroundTruth, dt: Results, plan: Plan, *, workers: int = 1, progress: Progress = silent
) -> list[accumulate.Partial]:
    """Returns one partial result a measure, to be merged with those of other images (arguments as `score_detections`).

    `gt` keeps the whole set's images and categories, so that places mean the same in every part,
    and holds only the annotations of its own images.
    """
    return _merged(_collect(gt, dt, plan, workers, progress)[0], plan)


def _merged(parts: Sequence[_Part], plan: Plan) -> list[accumulate.Partial]:
    return [
        accumulate.merge([part.partials[k] for part in parts]) for k in range(len(plan.measures))
    ]


def _collect(
    gt: GroundTruth, dt: Results, plan: Plan, workers: int, progress: Progress
) -> tuple[list[_Part], dict[str, int]]:
    load_kernels(len(dt))
    job, dropped = _prepare(gt, dt, plan)
    check_unused(
        dt.masks, job.dt_rows, f"{dt.name}: result", dt.row, workers=workers, progress=progress
    )
    done = list(run_parts(_chunk, job, len(job.chunks), workers=workers, progress=progress))
    return done, dropped


def join_best(parts: Sequence[BestMatches]) -> BestMatches:
    """Joins best matches of disjoint images, in the order of the ground truth."""
    order = np.argsort(np.concatenate([part.gt for part in parts]))
    columns = (
        np.concatenate([getattr(part, key) for part in parts])[order]
        for key in ("gt", "iou", "biou", "dt")
    )
    return BestMatches(*columns)
