"""IoU and boundary IoU of detection / ground-truth pairs, chunk by chunk.

Exact counts, with three savings that change no number: a pair whose areas and boxes cannot reach the wanted IoU is not
looked at; a mask is drawn once and its band made once, and only when some pair needs it; a mask no thicker than the
band is its own band.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqsam_metrics import packed
from hqsam_metrics.masks import dilation_pixels
from hqsam_metrics.rle import Int, Runs, ragged_arange

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Shapes:
    """Decoded masks with what is asked of them again and again: area int64 [n] and box int64 [n, 4] (x0 y0 x1 y1)."""

    runs: Runs
    areas: Int
    boxes: Int

    @classmethod
    def of(cls, runs: Runs) -> Shapes:
        """Measures `runs`."""
        return cls(runs, runs.areas(), runs.boxes())

    def __len__(self) -> int:
        """Returns n."""
        return len(self.areas)

    def take(self, index: Int) -> Shapes:
        """Returns the masks at `index` (int64 [m])."""
        runs = take_runs(self.runs, index)
        return Shapes(runs, self.areas[index], self.boxes[index])


def take_runs(runs: Runs, index: Int) -> Runs:
    """Returns the runs of the masks at `index` (int64 [m])."""
    sizes = np.diff(runs.offsets)[index]
    at = np.repeat(runs.offsets[index], sizes) + ragged_arange(sizes)
    offsets = np.zeros(len(index) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return Runs(runs.starts[at], runs.ends[at], offsets, runs.heights[index], runs.widths[index])


@dataclass(frozen=True)
class PairTable:
    """Pairs that reach the floor, and their values.

    Attributes:
        dt: int64 [m], detection.
        gt: int64 [m], ground truth.
        iou: float64 [m], mask IoU (crowd: intersection over the detection's area).
        biou: float64 [ratios, m], boundary IoU of the two bands at each dilation ratio; NaN where it was not wanted
            (crowd, or left out by the caller).
    """

    dt: Int
    gt: Int
    iou: Float
    biou: Float

    @classmethod
    def empty(cls, ratios: int) -> PairTable:
        """Returns a table without rows."""
        none, nothing = np.zeros(0, np.int64), np.zeros(0, np.float64)
        return cls(none, none, nothing, np.zeros((ratios, 0)))

    def value(self, ratio: int | None) -> Float:
        """Returns the IoU that AP matching uses: float64 [m].

        Args:
            ratio: place of the dilation ratio, None for mask AP. With one, the value is the smaller of mask and
                boundary IoU, and the mask IoU alone for crowd (Boundary IoU API).
        """
        return self.iou if ratio is None else np.fmin(self.iou, self.biou[ratio])


def divide(intersection: Int, union: Int) -> Float:
    """Returns intersection / union as float64, 0 where the union is 0 (the COCO rule)."""
    out = np.zeros(len(intersection), np.float64)
    return np.divide(intersection, union, out=out, where=union > 0)


def _upper_bound(dt: Shapes, gt: Shapes, i: Int, j: Int, crowd: Bool) -> Float:
    """Returns the largest IoU that areas and boxes allow for each pair (i, j)."""
    a, b = dt.boxes[i], gt.boxes[j]
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    most = np.minimum(np.minimum(dt.areas[i], gt.areas[j]), overlap)
    return divide(most, np.where(crowd, dt.areas[i], dt.areas[i] + gt.areas[j] - most))


@dataclass(frozen=True)
class Bands:
    """Bands of n masks: planes, pixel counts int64 [n]."""

    planes: packed.Planes
    counts: Int


def dilations(runs: Runs, ratio: float) -> Int:
    """Returns the band width in pixels for the image of each mask: int64 [n]."""
    sizes, inverse = np.unique(np.stack([runs.heights, runs.widths], axis=1), axis=0, return_inverse=True)
    widths = np.array([dilation_pixels(int(h), int(w), ratio) for h, w in sizes], np.int64)
    return widths[inverse.reshape(-1)] if len(widths) else np.zeros(0, np.int64)


def make_bands(shapes: Shapes, ratio: float) -> Bands:
    """Makes the boundary band of every mask (see `hqsam_metrics.masks.boundary_band`)."""
    d = dilations(shapes.runs, ratio)
    planes, pieces = packed.draw_masks(shapes.runs, shapes.boxes)
    words = planes.words
    sides = np.minimum(shapes.boxes[:, 2] - shapes.boxes[:, 0], shapes.boxes[:, 3] - shapes.boxes[:, 1])
    thick = sides > 2 * d
    for dilation in np.unique(d[thick]):
        mine = np.flatnonzero(thick & (d == dilation))
        words = words & ~_eroded(planes, mine, int(dilation), pieces)
    band = planes.with_words(words)
    return Bands(band, band.counts())


def _eroded(planes: packed.Planes, mine: Int, dilation: int, pieces: tuple[Int, Int, Int, Int]) -> packed.Words:
    """Erodes the masks `mine` alone and returns their words in the layout of `planes`."""
    if len(mine) == len(planes):
        return packed.erode(planes, dilation, *pieces)
    local = np.full(len(planes), -1, np.int64)
    local[mine] = np.arange(len(mine))
    keep = np.flatnonzero(local[pieces[0]] >= 0)
    boxes = np.stack(
        [
            planes.x0[mine],
            planes.w0[mine] << 6,
            planes.x1[mine],
            (planes.w0[mine] + planes.stride[mine]) << 6,
        ],
        axis=1,
    )
    small = packed.layout(boxes)
    eroded = packed.erode(small, dilation, local[pieces[0][keep]], *(column[keep] for column in pieces[1:]))
    out = np.zeros_like(planes.words)
    sizes = (small.x1 - small.x0) * small.stride
    step = ragged_arange(sizes)
    out[np.repeat(planes.base[mine], sizes) + step] = eroded[np.repeat(small.base, sizes) + step]
    return out


def _local(index: Int) -> tuple[Int, Int]:
    """Returns the distinct values of `index` and, for each entry, its place among them."""
    distinct, place = np.unique(index, return_inverse=True)
    return distinct, place.reshape(-1).astype(np.int64)


def count_intersections(dt: Shapes, gt: Shapes, i: Int, j: Int) -> Int:
    """Counts common pixels of the pairs (i, j): int64 [m]."""
    (di, li), (gj, lj) = _local(i), _local(j)
    a, b = dt.take(di), gt.take(gj)
    planes_a, _ = packed.draw_masks(a.runs, a.boxes)
    planes_b, _ = packed.draw_masks(b.runs, b.boxes)
    return packed.intersections(planes_a, planes_b, li, lj)


def boundary_ious(dt: Shapes, gt: Shapes, i: Int, j: Int, ratio: float) -> Float:
    """Returns the boundary IoU of the pairs (i, j): float64 [m]; 0 when both bands are empty."""
    (di, li), (gj, lj) = _local(i), _local(j)
    a, b = make_bands(dt.take(di), ratio), make_bands(gt.take(gj), ratio)
    common = packed.intersections(a.planes, b.planes, li, lj)
    return divide(common, a.counts[li] + b.counts[lj] - common)


Wanted = Callable[[Int, Int, Float], Bool]


def pair_ious(
    dt: Shapes,
    gt: Shapes,
    i: Int,
    j: Int,
    *,
    crowd: Bool,
    floor: float,
    ratios: Sequence[float] = (),
    wanted: Wanted | None = None,
) -> PairTable:
    """Computes the IoUs of candidate pairs.

    Args:
        dt: detections.
        gt: ground truth.
        i: int64 [m], detection of each candidate pair.
        j: int64 [m], its ground truth, of the same image.
        crowd: bool [n_gt].
        floor: pairs with a mask IoU below it are dropped; 0 drops only pairs without a common pixel.
        ratios: dilation ratios at which the boundary IoU is wanted.
        wanted: given (i, j, iou) of the pairs that are left, which of them need a boundary IoU (crowd never does).

    Returns:
        The pairs that are left, in the order given.
    """
    bound = _upper_bound(dt, gt, i, j, crowd[j])
    # A bound is computed with the same division as the IoU, so it can be compared without slack.
    keep = np.flatnonzero((bound >= floor) & (bound > 0))
    i, j = i[keep], j[keep]
    common = count_intersections(dt, gt, i, j)
    union = np.where(crowd[j], dt.areas[i], dt.areas[i] + gt.areas[j] - common)
    iou = divide(common, union)
    keep = np.flatnonzero((iou >= floor) & (common > 0))
    i, j, iou = i[keep], j[keep], iou[keep]
    biou = np.full((len(ratios), len(i)), np.nan)
    need = ~crowd[j] if wanted is None else ~crowd[j] & wanted(i, j, iou)
    at = np.flatnonzero(need)
    for r, ratio in enumerate(ratios if len(at) else ()):
        biou[r, at] = boundary_ious(dt, gt, i[at], j[at], ratio)
    return PairTable(i, j, iou, biou)
