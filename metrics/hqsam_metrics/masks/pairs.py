"""IoU and boundary IoU of detection / ground-truth pairs, chunk by chunk.

Exact counts, with three savings that change no number: a pair whose areas and boxes cannot reach
the wanted IoU is not looked at; a mask is drawn once and its band made once, and only when some
pair needs it; a mask no thicker than the band is its own band.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqsam_base.runs import Int
from hqsam_metrics.masks import packed
from hqsam_metrics.masks.iou import dilation_pixels
from hqsam_metrics.masks.packed import Shapes

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class PairTable:
    """Pairs that reach the floor, and their values.

    Attributes:
        dt: int64 [m], detection.
        gt: int64 [m], ground truth.
        iou: float64 [m], mask IoU (crowd: intersection over the detection's area).
        biou: float64 [ratios, m], boundary IoU of the two bands at each dilation ratio; NaN where
            it was not wanted (crowd, or left out by the caller).
        plain: float64 [m], mask IoU over the union, crowd or not.
    """

    dt: Int
    gt: Int
    iou: Float
    biou: Float
    plain: Float

    def value(self, ratio: int | None, *, crowds: bool = True) -> Float:
        """Returns the IoU that AP matching uses: float64 [m].

        Args:
            ratio: place of the dilation ratio, None for mask AP. With one, the value is the smaller
                of mask and boundary IoU, and the mask IoU alone for crowd (Boundary IoU API).
            crowds: whether the measure knows crowds; lvis-api does not.
        """
        if ratio is None:
            return self.iou if crowds else self.plain
        smaller: Float = np.fmin(self.iou, self.biou[ratio])
        return smaller

    def take(self, rows: Int | Bool) -> PairTable:
        """Returns some of the pairs."""
        return PairTable(
            self.dt[rows], self.gt[rows], self.iou[rows], self.biou[:, rows], self.plain[rows]
        )

    def numbered(self, dt: Int, gt: Int) -> PairTable:
        """Returns the same pairs with other numbers: those that `dt` and `gt` hold for the present ones."""
        return PairTable(dt[self.dt], gt[self.gt], self.iou, self.biou, self.plain)


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


def dilations(shapes: Shapes, ratios: Sequence[float]) -> tuple[Int, Int]:
    """Returns band widths in pixels, int64 [ratios, n], and a number for each distinct set of them, int64 [n]."""
    code = (shapes.heights << 32) + shapes.widths
    sizes, inverse = np.unique(code, return_inverse=True)
    inverse = inverse.reshape(-1)
    widths = [
        [dilation_pixels(int(c >> 32), int(c & 0xFFFFFFFF), ratio) for c in sizes]
        for ratio in ratios
    ]
    table = np.array(widths, np.int64).reshape(len(ratios), len(sizes))
    group = (
        np.unique(table, axis=1, return_inverse=True)[1].reshape(-1)
        if table.size
        else np.zeros(len(sizes), int)
    )
    return table[:, inverse], np.asarray(group[inverse], np.int64)


@dataclass(frozen=True)
class Bands:
    """Bands of n masks: planes, pixel counts int64 [n]."""

    planes: packed.Planes
    counts: Int


def make_bands(drawing: packed.Drawing, dilation: Int, wanted: Bool | None = None) -> Bands:
    """Makes the boundary bands (see `hqsam_metrics.masks.iou.boundary_band`).

    Args:
        drawing: n masks, drawn with the groups of `dilations`.
        dilation: int64 [n], band widths in pixels.
        wanted: bool [n], masks whose band is needed (the others stay whole masks); None: all.
    """
    need = np.ones(len(dilation), bool) if wanted is None else wanted
    return Bands(*packed.bands(drawing, dilation, need))


def draw_for_bands(shapes: Shapes, ratios: Sequence[float]) -> tuple[packed.Drawing, Int]:
    """Draws masks so that their bands can be made; returns the drawing and the band widths int64 [ratios, n]."""
    widths, group = dilations(shapes, ratios)
    return packed.draw(shapes, group), widths


def _local(index: Int) -> tuple[Int, Int]:
    """Returns the distinct values of `index` and, for each entry, its place among them."""
    distinct, place = np.unique(index, return_inverse=True)
    return distinct, place.reshape(-1).astype(np.int64)


def _needed(place: Int, size: int) -> Bool:
    out = np.zeros(size, bool)
    out[place] = True
    return out


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
        floor: pairs with a mask IoU below it are dropped; 0 drops only pairs without a common
            pixel.
        ratios: dilation ratios at which the boundary IoU is wanted.
        wanted: given (i, j, iou) of the pairs that are left, which of them need a boundary IoU
            (crowd never does).

    Returns:
        The pairs that are left, in the order given.
    """
    bound = _upper_bound(dt, gt, i, j, crowd[j])
    # A bound is computed with the same division as the IoU, so it can be compared without slack.
    keep = np.flatnonzero((bound >= floor) & (bound > 0))
    i, j = i[keep], j[keep]
    (di, li), (gj, lj) = _local(i), _local(j)
    (a, wide_a), (b, wide_b) = (
        draw_for_bands(dt.take(di), ratios),
        draw_for_bands(gt.take(gj), ratios),
    )
    common = packed.intersections(a.planes, b.planes, li, lj)
    plain = divide(common, dt.areas[i] + gt.areas[j] - common)
    iou = np.where(crowd[j], divide(common, dt.areas[i]), plain)
    keep = np.flatnonzero((iou >= floor) & (common > 0))
    i, j, iou, plain, li, lj = i[keep], j[keep], iou[keep], plain[keep], li[keep], lj[keep]
    biou = np.full((len(ratios), len(i)), np.nan)
    need = ~crowd[j] if wanted is None else ~crowd[j] & wanted(i, j, iou)
    at = np.flatnonzero(need)
    for r in range(len(ratios) if len(at) else 0):
        left = make_bands(a, wide_a[r], _needed(li[at], len(di)))
        right = make_bands(b, wide_b[r], _needed(lj[at], len(gj)))
        both = packed.intersections(left.planes, right.planes, li[at], lj[at])
        biou[r, at] = divide(both, left.counts[li[at]] + right.counts[lj[at]] - both)
    return PairTable(i, j, iou, biou, plain)
