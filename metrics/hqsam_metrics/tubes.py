"""YouTube-VIS / HQ-YTVIS: AP of object tubes (one mask a frame), by mask and by boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_metrics import ap
from hqsam_metrics.detection import BestMatches, Scored, best_of, decode_shapes, join_best
from hqsam_metrics.errors import UserError
from hqsam_metrics.grouping import candidate_pairs, first_best, order_detections
from hqsam_metrics.instances import (
    Bool, Float, Report, flag, integers, numbers, place_of, rows_of, silent, unique,
)  # fmt: skip
from hqsam_metrics.jsonlist import read_json
from hqsam_metrics.masks import segmentation_string
from hqsam_metrics.pairs import PairTable, Shapes, divide, make_bands
from hqsam_metrics.pairs import count_intersections as _common
from hqsam_metrics.packed import intersections
from hqsam_metrics.rle import Int, RleBatch, RleError, encode_lengths, ragged_arange

LIMITS = (1, 10, 100)
BINS = ap.size_bins(128, 256)
# The official code takes predictions at this ratio whatever the ground truth was loaded with.
DILATION_RATIO = 0.02


@dataclass(frozen=True)
class Tubes:
    """Object tubes; frame f of tube i is mask ``offsets[i] + f``, an empty one where the object is away.

    Attributes:
        name: the file, for messages.
        video: int64 [n], place of the video.
        category: int64 [n], place of the category, -1 for an unknown one.
        score: float64 [n], zeros for ground truth.
        crowd: bool [n].
        area: float64 [n], given mean area (ground truth), NaN: count.
        offsets: int64 [n + 1], frames of each tube.
        masks: codes of all frames.
    """

    name: str
    video: Int
    category: Int
    score: Float
    crowd: Bool
    area: Float
    offsets: Int
    masks: RleBatch

    def __len__(self) -> int:
        """Returns n."""
        return len(self.video)

    def take(self, rows: Int) -> tuple[Int, Int]:
        """Returns the frames of some tubes: their masks' numbers (int64 [f]) and new offsets (int64 [len(rows) + 1])."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        return np.repeat(self.offsets[rows], sizes) + ragged_arange(sizes), offsets


@dataclass(frozen=True)
class TubeTruth:
    """Ground truth of a video set: ids of videos and categories (rising), sizes and lengths of videos, the tubes."""

    video_ids: Int
    heights: Int
    widths: Int
    lengths: Int
    category_ids: Int
    ids: Int
    tubes: Tubes
    warnings: tuple[str, ...] = ()


def blank_string(height: int, width: int) -> bytes:
    """Returns the compressed code of an empty mask."""
    lengths = np.array([height * width], np.int64)
    return encode_lengths(lengths, np.array([0, 1], np.int64))[0].tobytes()


def _frames(
    rows: Sequence[Any], video: Int, truth: tuple[Int, Int], name: str, what: str
) -> tuple[Int, RleBatch]:
    """Reads `segmentations` of all rows: offsets and codes."""
    heights, widths = truth
    strings: list[bytes] = []
    counts: list[int] = []
    empty: dict[tuple[int, int], bytes] = {}
    for i, row in enumerate(rows):
        size = int(heights[video[i]]), int(widths[video[i]])
        frames = row.get("segmentations")
        if not isinstance(frames, list):
            raise UserError(f"{name}: {what} {i}: `segmentations` must be a list with one entry a frame")
        blank = empty.setdefault(size, blank_string(*size))
        for f, frame in enumerate(frames):
            try:
                strings.append(blank if frame is None else segmentation_string(frame, *size))
            except RleError as error:
                raise UserError(f"{name}: {what} {i}, frame {f}: {error.reason}") from None
        counts.append(len(frames))
    sizes = np.array(counts, np.int64)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    owner = np.repeat(video, sizes)
    return offsets, RleBatch.of(strings, heights[owner], widths[owner])


def _mean_area(row: Mapping[str, Any], name: str) -> float:
    areas = row.get("areas")
    if not isinstance(areas, list):
        raise UserError(f"{name}: annotation id {row.get('id')}: `areas` must be a list with one entry a frame")
    present = [float(v) for v in areas if v is not None and v > 0]
    return float(np.mean(present)) if present else 0.0


def parse_ytvis(content: Any, name: str) -> TubeTruth:
    """Reads an annotation file in YouTube-VIS format.

    Raises:
        UserError: duplicate ids, malformed or wrongly sized masks, missing keys.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{name}: must be a JSON object with `videos`, `annotations`, `categories`")
    videos = rows_of(content, "videos", name)
    if not videos:
        raise UserError(f"{name}: `videos` is empty; there is nothing to score")
    ids = integers(videos, "id", name, "video")
    unique(ids, name, "video id")
    order = np.argsort(ids)
    heights, widths = (integers(videos, key, name, "video")[order] for key in ("height", "width"))
    lengths = np.array([_length(row, name) for row in videos], np.int64)[order]
    ids = ids[order]
    category_ids = integers(rows_of(content, "categories", name), "id", name, "category")
    unique(category_ids, name, "category id")
    category_ids = np.sort(category_ids)
    rows = rows_of(content, "annotations", name)
    own = integers(rows, "id", name, "annotation")
    unique(own, name, "annotation id")
    video = place_of(ids, integers(rows, "video_id", name, "annotation"))
    category = place_of(category_ids, integers(rows, "category_id", name, "annotation"))
    keep = np.flatnonzero((video >= 0) & (category >= 0))
    warnings = () if len(keep) == len(rows) else (
        f"{len(rows) - len(keep)} annotations of unknown videos or categories were left out",
    )  # fmt: skip
    kept = [rows[i] for i in keep]
    offsets, masks = _frames(kept, video[keep], (heights, widths), name, "annotation")
    tubes = Tubes(
        name, video[keep], category[keep], np.zeros(len(keep)),
        np.array([flag(row, "iscrowd", name) for row in kept], bool),
        np.array([_mean_area(row, name) for row in kept], np.float64), offsets, masks,
    )  # fmt: skip
    return TubeTruth(ids, heights, widths, lengths, category_ids, own[keep], tubes, warnings)


def _length(row: Any, name: str) -> int:
    names = row.get("file_names")
    if isinstance(names, list):
        return len(names)
    if isinstance(row.get("length"), int):
        return int(row["length"])
    raise UserError(f"{name}: video id {row.get('id')} has neither `file_names` nor `length`")


def parse_tube_results(rows: Any, truth: TubeTruth, name: str) -> Tubes:
    """Reads results in YouTube-VIS format; a frame may be null, `height` and `width` are not needed.

    Raises:
        UserError: unknown video ids, scores that are no finite numbers, malformed or wrongly sized masks.
    """
    if not isinstance(rows, list):
        raise UserError(f"{name}: must be a JSON list of results")
    ids = integers(rows, "video_id", name, "result")
    video = place_of(truth.video_ids, ids)
    unknown = np.flatnonzero(video < 0)
    if len(unknown):
        raise UserError(
            f"{name}: result {unknown[0]}: video_id {ids[unknown[0]]} is not in {truth.tubes.name}"
            f" ({len(unknown)} such results); score it against the annotation file it was made for"
        )
    category = place_of(truth.category_ids, integers(rows, "category_id", name, "result"))
    score = numbers(rows, "score", name, "result")
    offsets, masks = _frames(rows, video, (truth.heights, truth.widths), name, "result")
    none = np.zeros(len(rows), bool)
    return Tubes(name, video, category, score, none, np.full(len(rows), np.nan), offsets, masks)


def read_ytvis(path: Path) -> TubeTruth:
    """Reads an annotation file (see `parse_ytvis`)."""
    return parse_ytvis(read_json(path), str(path))


def read_tube_results(path: Path, truth: TubeTruth) -> Tubes:
    """Reads a result file (see `parse_tube_results`)."""
    return parse_tube_results(read_json(path), truth, str(path))


def length_warnings(truth: TubeTruth, dt: Tubes) -> list[str]:
    """Counts tubes whose list of frames is not as long as their video."""
    out = []
    for tubes, what in ((truth.tubes, "annotations"), (dt, "results")):
        wrong = int((np.diff(tubes.offsets) != truth.lengths[tubes.video]).sum())
        if wrong:
            out.append(f"{wrong} {what} have not one mask a frame; frames beyond the shorter list do not count")
    return out


@dataclass(frozen=True)
class _Side:
    """Frames of the tubes of a few videos."""

    shapes: Shapes
    offsets: Int

    def sums(self, values: Int, tube: Int, frames: Int) -> Int:
        """Sums `values` (one a frame) over the first `frames` frames of each tube."""
        total = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, out=total[1:])
        begin = self.offsets[tube]
        return total[begin + frames] - total[begin]


def _frame_pairs(a: _Side, b: _Side, i: Int, j: Int, frames: Int) -> tuple[Int, Int, Int]:
    """Returns the frames that a pair of tubes has in common: pair number, frame of a, frame of b (both not empty)."""
    pair = np.repeat(np.arange(len(i)), frames)
    step = ragged_arange(frames)
    fa, fb = a.offsets[i][pair] + step, b.offsets[j][pair] + step
    box_a, box_b = a.shapes.boxes[fa], b.shapes.boxes[fb]
    low = np.maximum(box_a[:, :2], box_b[:, :2])
    high = np.minimum(box_a[:, 2:], box_b[:, 2:])
    keep = np.flatnonzero((low < high).all(axis=1))
    return pair[keep], fa[keep], fb[keep]


def tube_ious(a: _Side, b: _Side, i: Int, j: Int, *, ratio: float | None) -> Float:
    """Returns the IoU of tube pairs: sum of intersections over sum of unions, over all frames.

    Args:
        a: first tubes.
        b: second tubes.
        i: int64 [m], tube of `a`.
        j: int64 [m], tube of `b`.
        ratio: None for whole masks, or the dilation ratio for their boundary bands (each frame on its own).

    Returns:
        float64 [m], 0 where both tubes are empty.
    """
    frames = np.minimum(np.diff(a.offsets)[i], np.diff(b.offsets)[j])
    pair, fa, fb = _frame_pairs(a, b, i, j, frames)
    if ratio is None:
        counts_a, counts_b = a.shapes.areas, b.shapes.areas
        common = _common(a.shapes, b.shapes, fa, fb)
    else:
        bands_a, bands_b = make_bands(a.shapes, ratio), make_bands(b.shapes, ratio)
        counts_a, counts_b = bands_a.counts, bands_b.counts
        common = intersections(bands_a.planes, bands_b.planes, fa, fb)
    inside = np.bincount(pair, weights=common, minlength=len(i)).astype(np.int64)
    return divide(inside, a.sums(counts_a, i, frames) + b.sums(counts_b, j, frames) - inside)


def _side(tubes: Tubes, rows: Int, what: str) -> _Side:
    frames, offsets = tubes.take(rows)
    owner = np.repeat(np.arange(len(tubes)), np.diff(tubes.offsets))
    return _Side(decode_shapes(tubes.masks, frames, f"{tubes.name}: a frame of {what}", owner), offsets)


def _mean_counted(side: _Side) -> Float:
    present = (side.shapes.areas > 0).astype(np.int64)
    whole = np.arange(len(side.offsets) - 1)
    sizes = np.diff(side.offsets)
    return divide(side.sums(side.shapes.areas, whole, sizes), side.sums(present, whole, sizes))


def pair_tubes(
    found: _Side, real: _Side, i: Int, j: Int, crowd: Bool, *, boundary: bool, per_instance: bool
) -> PairTable:
    """Returns the pairs of tubes that matter, with tube mask IoU and (if `boundary`) tube boundary IoU."""
    iou = tube_ious(found, real, i, j, ratio=None)
    keep = np.flatnonzero(iou >= (0.0 if per_instance else ap.IOU_THRESHOLDS[0]))
    i, j, iou = i[keep], j[keep], iou[keep]
    biou = np.full((1 if boundary else 0, len(i)), np.nan)
    if boundary:
        need = iou >= ap.IOU_THRESHOLDS[0]
        if per_instance:
            need[first_best(j, iou)] = True
        at = np.flatnonzero(need & ~crowd[j])
        biou[0, at] = tube_ious(found, real, i[at], j[at], ratio=DILATION_RATIO)
    return PairTable(i, j, iou, biou)


def score_tubes(
    truth: TubeTruth, dt: Tubes, *, boundary: bool = True, class_agnostic: bool = False,
    per_instance: bool = False, workers: int = 1, report: Report = silent,
) -> Scored:  # fmt: skip
    """Scores tubes as the HQ-YTVIS evaluator does.

    Args:
        truth: annotations.
        dt: results.
        boundary: also the tube boundary AP (second table), matched with min(tube mask IoU, tube boundary IoU).
        class_agnostic: match within a video whatever the category.
        per_instance: also the best detection of each ground truth tube.
        report: progress.

    Returns:
        Tables for mask and (if wanted) boundary.

    Raises:
        UserError: malformed masks.
    """
    gt = truth.tubes
    n = 1 if class_agnostic else len(truth.category_ids)
    known = np.flatnonzero(dt.category >= 0)
    dropped = {"of a category that the ground truth does not have": len(dt) - len(known)}
    group = dt.video[known] * n + (0 if class_agnostic else dt.category[known])
    rows, groups, rank = order_detections(known, group, dt.category[known], dt.score[known], LIMITS[-1])
    gt_group = gt.video * n + (0 if class_agnostic else gt.category)
    gt_rows = np.lexsort((np.arange(len(gt)), gt.category, gt_group))
    parts: list[list[ap.Partial]] = [[], []]
    best: list[BestMatches] = []
    n_videos = len(truth.video_ids)
    for v in range(n_videos):
        d = slice(*np.searchsorted(groups, [v * n, v * n + n]))
        g = gt_rows[slice(*np.searchsorted(gt_group[gt_rows], [v * n, v * n + n]))]
        found, real = _side(dt, rows[d], "result"), _side(gt, g, "annotation")
        i, j = candidate_pairs(groups[d], gt_group[g])
        pairs = pair_tubes(found, real, i, j, gt.crowd[g], boundary=boundary, per_instance=per_instance)
        units = _units(dt, gt, rows[d], g, rank[d], _mean_counted(found), class_agnostic)
        for kind in range(1 + boundary):
            value = pairs.value(0 if kind else None)
            parts[kind].append(ap.evaluate(units, pairs, value, n_categories=n, bins=BINS))
        best.append(best_of(pairs, g, gt.crowd[g]))
        report(v + 1, n_videos, "scoring")
    tables = tuple(ap.finish(ap.merge(p), limits=LIMITS, bins=BINS) for p in parts[: 1 + boundary])
    left_out = {key: value for key, value in dropped.items() if value}
    return Scored(tables, join_best(best) if per_instance else None, left_out)


def _units(
    dt: Tubes, gt: Tubes, rows: Int, g: Int, rank: Int, area: Float, class_agnostic: bool
) -> ap.Units:
    zeros = np.zeros(len(rows), np.int64), np.zeros(len(g), np.int64)
    return ap.Units(
        dt_image=dt.video[rows],
        dt_category=zeros[0] if class_agnostic else dt.category[rows],
        dt_score=dt.score[rows],
        dt_rank=rank,
        dt_area=area,
        dt_lenient=np.zeros(len(rows), bool),
        gt_category=zeros[1] if class_agnostic else gt.category[g],
        gt_area=gt.area[g],
        gt_ignore=gt.crowd[g],
        gt_crowd=gt.crowd[g],
    )
