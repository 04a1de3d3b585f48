"""Average precision and recall in the manner of COCOeval, from partial results that can be merged.

`evaluate` turns a set of images into a `Partial`; partials of disjoint sets of images are merged in
any order;
`finish` sorts, accumulates and averages. So the numbers cannot depend on chunks, workers or order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hqsam_base.runs import Int
from hqsam_metrics.ap.matching import match
from hqsam_metrics.masks.pairs import PairTable

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Bits = NDArray[np.uint16]

IOU_THRESHOLDS: Float = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS: Float = np.linspace(0.0, 1.0, 101)
EVERYWHERE = np.uint16((1 << len(IOU_THRESHOLDS)) - 1)
"""The bits of all thresholds."""


@dataclass(frozen=True)
class AreaRange:
    """A size bin in pixels; `closed` tells whether an area equal to `high` belongs to it (`low` always does)."""

    name: str
    low: float
    high: float
    closed: bool = True

    def outside(self, area: Float) -> Bool:
        """Returns which areas lie outside: bool, shape of `area`."""
        above = area > self.high if self.closed else area >= self.high
        return (area < self.low) | above


def size_bins(small: float, medium: float, *, closed: bool = True) -> tuple[AreaRange, ...]:
    """Returns the bins all, s, m, l with borders `small`^2 and `medium`^2 pixels."""
    top = 1e10
    return (
        AreaRange("", 0.0, top, closed),
        AreaRange("s", 0.0, small**2, closed),
        AreaRange("m", small**2, medium**2, closed),
        AreaRange("l", medium**2, top, closed),
    )


@dataclass(frozen=True)
class Units:
    """What is matched: detections and ground truth of some images (or videos), sorted and numbered.

    Attributes:
        dt_image: int64 [n], place of the image in the sorted list of all images.
        dt_category: int64 [n], place of the category; 0 for all when class-agnostic.
        dt_score: float64 [n].
        dt_rank: int64 [n], place by falling score inside its group; groups are neighbours, ranks
            rise.
        dt_area: float64 [n], pixels.
        dt_lenient: bool [n], ignored when unmatched (LVIS: category not exhaustively annotated in
            that image).
        gt_image: int64 [g].
        gt_category: int64 [g].
        gt_area: float64 [g].
        gt_ignore: bool [g].
        gt_crowd: bool [g], may be matched more than once.
    """

    dt_image: Int
    dt_category: Int
    dt_score: Float
    dt_rank: Int
    dt_area: Float
    dt_lenient: Bool
    gt_image: Int
    gt_category: Int
    gt_area: Float
    gt_ignore: Bool
    gt_crowd: Bool


@dataclass(frozen=True)
class Partial:
    """Matches of some images.

    Attributes:
        image, category, score, rank: of each detection, [n] (see `Units`).
        outside: bool [A, n], ignored when unmatched.
        active: int64 [m], the detections that could match.
        matched: uint16 [A, m], bit t: matched at threshold t.
        ignored: uint16 [A, m], bit t: matched to an ignored ground truth.
        gt_image, gt_category: of each ground truth, [g].
        gt_counts: bool [A, g], ground truth that is not ignored.
    """

    image: Int
    category: Int
    score: Float
    rank: Int
    outside: Bool
    active: Int
    matched: Bits
    ignored: Bits
    gt_image: Int
    gt_category: Int
    gt_counts: Bool

    @cached_property
    def _place(self) -> Int:
        """Where each detection is in `active`: int64 [n], -1 for one that could not match."""
        place = np.full(len(self.score), -1, np.int64)
        place[self.active] = np.arange(len(self.active))
        return place

    def bits(self, rows: Int) -> tuple[Bits, Bits]:
        """Returns which detections are true positives, and which do not count: uint16 [A, len(rows)], bit t: threshold t."""
        hit = np.zeros((len(self.matched), len(rows)), np.uint16)
        void = np.where(self.outside[:, rows], EVERYWHERE, np.uint16(0))
        place = self._place[rows]
        at = np.flatnonzero(place >= 0)
        matched, ignored = self.matched[:, place[at]], self.ignored[:, place[at]]
        hit[:, at] = matched & ~ignored
        void[:, at] = (void[:, at] & ~matched) | (matched & ignored)
        return hit, void


def pack(flags: Bool) -> Bits:
    """Packs flags bool [A, T, n] to numbers uint16 [A, n] whose bit t is that of threshold t."""
    out = np.zeros((flags.shape[0], flags.shape[2]), np.uint16)
    for t in range(flags.shape[1]):
        out |= flags[:, t].astype(np.uint16) << np.uint16(t)
    return out


def unpack(bits: Bits) -> Bool:
    """Returns the flags bool [A, T, n] of numbers uint16 [A, n]."""
    return (bits[:, None] >> np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)[:, None]) & 1 > 0


def evaluate(
    units: Units, pairs: PairTable, value: Float, *, n_categories: int, bins: Sequence[AreaRange]
) -> Partial:
    """Matches one set of images.

    Args:
        units: detections and ground truth.
        pairs: candidate pairs (numbers refer to `units`).
        value: float64 [pairs], the IoU that counts (min of mask and boundary IoU for boundary AP).
        n_categories: K.
        bins: area ranges.

    Returns:
        The partial result.
    """
    gt_ignore = np.stack([units.gt_ignore | area.outside(units.gt_area) for area in bins])
    outside = np.stack([units.dt_lenient | area.outside(units.dt_area) for area in bins])
    group = units.dt_image * n_categories + units.dt_category
    found = match(
        dt=pairs.dt,
        gt=pairs.gt,
        value=value,
        group=group,
        gt_ignore=gt_ignore,
        gt_crowd=units.gt_crowd,
        thresholds=IOU_THRESHOLDS,
    )
    matched = found.gt >= 0
    ignored = np.zeros_like(matched)
    for a in range(len(bins)):
        ignored[a] = matched[a] & gt_ignore[a][found.gt[a]] if gt_ignore.shape[1] else False
    return Partial(
        units.dt_image,
        units.dt_category,
        units.dt_score,
        units.dt_rank,
        outside,
        found.dt,
        pack(matched),
        pack(ignored),
        units.gt_image,
        units.gt_category,
        ~gt_ignore,
    )


def merge(parts: Sequence[Partial]) -> Partial:
    """Joins partial results of disjoint sets of images; `finish` gives the same for any order and any division."""
    shift = np.cumsum([0, *(len(part.score) for part in parts)])
    return Partial(
        image=np.concatenate([p.image for p in parts]),
        category=np.concatenate([p.category for p in parts]),
        score=np.concatenate([p.score for p in parts]),
        rank=np.concatenate([p.rank for p in parts]),
        outside=np.concatenate([p.outside for p in parts], axis=1),
        active=np.concatenate([p.active + s for p, s in zip(parts, shift[:-1], strict=True)]),
        matched=np.concatenate([p.matched for p in parts], axis=1),
        ignored=np.concatenate([p.ignored for p in parts], axis=1),
        gt_image=np.concatenate([p.gt_image for p in parts]),
        gt_category=np.concatenate([p.gt_category for p in parts]),
        gt_counts=np.concatenate([p.gt_counts for p in parts], axis=1),
    )


@dataclass(frozen=True)
class Tables:
    """Precision and recall; NaN where a cell has no ground truth.

    Attributes:
        precision: float64 [A, K, T, R] at the largest limit of detections.
        recall: float64 [M, A, K, T] for each limit.
        limits: M limits of detections per group.
        bins: the area ranges A.
    """

    precision: Float
    recall: Float
    limits: tuple[int, ...]
    bins: tuple[AreaRange, ...]

    def ap(
        self, *, bin_name: str = "", iou: float | None = None, categories: Int | None = None
    ) -> float | None:
        """Returns the mean precision over thresholds, recalls and categories; None without ground truth."""
        cells = self.precision[self._bin(bin_name)]
        cells = cells if categories is None else cells[categories]
        return mean_defined(cells if iou is None else cells[:, [self._threshold(iou)]])

    def ar(self, *, bin_name: str = "", limit: int | None = None) -> float | None:
        """Returns the mean recall over thresholds and categories; None without ground truth."""
        m = len(self.limits) - 1 if limit is None else self.limits.index(limit)
        return mean_defined(self.recall[m, self._bin(bin_name)])

    def per_category(self) -> Float:
        """Returns the AP of each category, NaN where undefined: float64 [K]."""
        means = [mean_defined(cells) for cells in self.precision[0]]
        return np.array([np.nan if mean is None else mean for mean in means], np.float64)

    def curve(self, iou: float) -> Float:
        """Returns the precision at each recall, the mean over the categories with ground truth: float64 [R]."""
        cells = self.precision[0, :, self._threshold(iou)]
        mean: Float = cells[~np.isnan(cells).all(axis=1)].mean(axis=0)
        return mean

    def _bin(self, name: str) -> int:
        return [area.name for area in self.bins].index(name)

    def _threshold(self, iou: float) -> int:
        return int(np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou))[0])


def mean_defined(values: Float) -> float | None:
    """Returns the mean of the values that are not NaN, None when there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def finish(
    partial: Partial, *, n_categories: int, limits: tuple[int, ...], bins: Sequence[AreaRange]
) -> Tables:
    """Accumulates precision and recall.

    Args:
        partial: matches of all images.
        n_categories: K.
        limits: numbers of detections per group for which recall is wanted, rising; precision uses
            the last.
        bins: the area ranges given to `evaluate`.

    Returns:
        The tables.
    """
    counts = partial.gt_counts
    totals = np.stack(
        [np.bincount(partial.gt_category[row], minlength=n_categories) for row in counts]
    )
    shape = (len(limits), len(counts), n_categories, len(IOU_THRESHOLDS))
    recall = np.full(shape, np.nan)
    precision = np.full((*shape[1:], len(RECALL_THRESHOLDS)), np.nan)
    order = np.lexsort((partial.rank, partial.image, -partial.score, partial.category))
    borders = np.searchsorted(partial.category[order], np.arange(n_categories + 1))
    for k in np.flatnonzero(totals.any(axis=0)):
        mine = order[borders[k] : borders[k + 1]]
        hits, voids = partial.bits(mine)
        hit, counted = unpack(hits), ~unpack(voids)
        for m, limit in enumerate(limits):
            caught = hit[:, :, partial.rank[mine] < limit].sum(axis=2)
            recall[m, :, k] = caught / np.where(totals[:, k] > 0, totals[:, k], np.nan)[:, None]
        inside = partial.rank[mine] < limits[-1]
        for a in np.flatnonzero(totals[:, k]):
            precision[a, k] = interpolated_precision(
                hit[a][:, inside], counted[a][:, inside], int(totals[a, k])
            )
    return Tables(precision, recall, limits, tuple(bins))


def interpolated_precision(hit: Bool, counted: Bool, positives: int) -> Float:
    """Returns the interpolated precision at the 101 recalls: float64 [T, R], from bool [T, n] in falling score."""
    if not hit.shape[1]:
        return np.zeros((len(hit), len(RECALL_THRESHOLDS)))
    true = np.cumsum(hit, axis=1, dtype=np.float64)
    seen = np.cumsum(counted, axis=1, dtype=np.float64)
    precision = true / (seen + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # The first place where the recall reaches a threshold is that of the n-th hit, n being the same
    # for all rows.
    wanted = np.searchsorted(np.arange(positives + 1) / positives, RECALL_THRESHOLDS, side="left")
    row, place = np.nonzero(hit)
    n_hits = np.bincount(row, minlength=len(hit))
    reached = wanted <= n_hits[:, None]
    nth = (np.cumsum(n_hits) - n_hits)[:, None] + wanted - 1
    # Recall 0 is reached at once.
    at = np.where(wanted > 0, np.append(place, 0)[np.where(reached, nth, -1)], 0)
    return np.where(reached, np.take_along_axis(precision, at, axis=1), 0.0)
