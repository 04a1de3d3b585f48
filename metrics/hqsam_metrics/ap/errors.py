"""What kind of error each detection is, and what each kind costs.

The kinds are those of TIDE (Bolya, Foley, Hays and Hoffman, ECCV 2020, sections 2.2 and 2.3), at
its IoU limits: 0.5 to be right, 0.1 to be about an object at all. Detections are matched as AP
matches them, so that the AP50 that the split starts from is the official one; what AP leaves out
(crowds, ignored objects, LVIS's classes that were not annotated exhaustively) is no error here
either. Our own code; TIDE's differs in cutting at 100 detections an image over all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.runs import Int
from hqsam_metrics.ap.accumulate import Units, interpolated_precision, mean_defined
from hqsam_metrics.ap.grouping import first_best
from hqsam_metrics.ap.matching import match
from hqsam_metrics.masks.pairs import PairTable

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

RIGHT, ABOUT = 0.5, 0.1
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
_NAMES = ("right", *KINDS[:5], "left out")
_OF = {name: np.uint8(place) for place, name in enumerate(_NAMES)}


@dataclass(frozen=True)
class Found:
    """The detections and objects of some images.

    Attributes:
        image, category, score, rank: of each detection, [n] (see `hqsam_metrics.ap.accumulate.Units`).
        kind: uint8 [n], place in ``right``, the first five `KINDS`, ``left out``.
        target: int64 [n], the object that a wrong class or a poor mask was meant for, -1 for none.
        iou: float64 [n], of the object that it is nearest to, whatever the class; 0 without any.
        row: int64 [n], place of the detection in its file.
        object_category: int64 [g].
        object_counts: bool [g], not ignored.
        object_found: bool [g], some detection is right about it.
    """

    image: Int
    category: Int
    score: Float
    rank: Int
    kind: NDArray[np.uint8]
    target: Int
    iou: Float
    row: Int
    object_category: Int
    object_counts: Bool
    object_found: Bool

    @property
    def counted(self) -> Bool:
        """Which detections count: all but those left out."""
        counts: Bool = self.kind != _OF["left out"]
        return counts


def classify(units: Units, pairs: PairTable, value: Float, *, row: Int, n_categories: int) -> Found:
    """Says of each detection of some images which kind of error it is.

    Args:
        units: detections and objects.
        pairs: all pairs of one image that share a pixel, whatever the classes (numbers refer to
            `units`; rising detections).
        value: float64 [pairs], the IoU that counts.
        row: int64 [n], place of each detection in its file.
        n_categories: K.
    """
    n, group = len(units.dt_image), units.dt_image * n_categories + units.dt_category
    own = units.dt_category[pairs.dt] == units.gt_category[pairs.gt]
    found = match(
        dt=pairs.dt[own],
        gt=pairs.gt[own],
        value=value[own],
        group=group,
        gt_ignore=units.gt_ignore[None],
        gt_crowd=units.gt_crowd,
        thresholds=np.array([RIGHT]),
    )
    matched = np.full(n, -1, np.int64)
    matched[found.dt] = found.gt[0, 0]
    taken = np.zeros(len(units.gt_image), bool)
    taken[matched[matched >= 0]] = True
    real = ~units.gt_ignore[pairs.gt] & (value > 0)
    mine, mine_at = _nearest(n, pairs, value, real & own)
    other, other_at = _nearest(n, pairs, value, real & ~own)
    # In this order the first that holds is the kind.
    choices = (
        ((matched >= 0) & units.gt_ignore[matched] if len(taken) else matched >= 0, "left out"),
        (matched >= 0, "right"),
        (units.dt_lenient, "left out"),
        ((mine >= ABOUT) & (mine < RIGHT), "localisation"),
        (other >= RIGHT, "classification"),
        (mine >= RIGHT, "duplicate"),
        (other >= ABOUT, "both"),
    )
    kind = np.select([c for c, _ in choices], [_OF[k] for _, k in choices], _OF["background"])
    target = np.where(kind == _OF["classification"], other_at, -1)
    return Found(
        units.dt_image,
        units.dt_category,
        units.dt_score,
        units.dt_rank,
        kind.astype(np.uint8),
        np.where(kind == _OF["localisation"], mine_at, target),
        np.maximum(mine, other),
        row,
        units.gt_category,
        ~units.gt_ignore,
        taken,
    )


def _nearest(n: int, pairs: PairTable, value: Float, chosen: Bool) -> tuple[Float, Int]:
    """Returns the largest value of each of n detections among the chosen pairs (0 for none), and its object (-1)."""
    most, at = np.zeros(n), np.full(n, -1, np.int64)
    rows = np.flatnonzero(chosen)
    best = rows[first_best(pairs.dt[rows], value[rows])]
    most[pairs.dt[best]], at[pairs.dt[best]] = value[best], pairs.gt[best]
    return most, at


def join(parts: Sequence[Found]) -> Found:
    """Joins disjoint images; `split` gives the same for any order and any division."""
    shift = np.cumsum([0, *(len(part.object_category) for part in parts)])
    moved = [
        replace(p, target=np.where(p.target >= 0, p.target + s, -1))
        for p, s in zip(parts, shift[:-1], strict=True)
    ]
    names = [field.name for field in fields(Found)]
    return Found(**{name: np.concatenate([getattr(p, name) for p in moved]) for name in names})


def split(found: Found, n_categories: int) -> dict[str, Any]:
    """Counts the errors of each kind, and what AP50 gains if all of a kind are mended.

    Mended means: a wrong class or a poor mask is right if its object is not found otherwise (the
    best of several detections is), a missed object is none, and any other error is left out.

    Returns:
        ``{"ap50", "objects", "detections", "right", "count": {kind: n}, "cost": {kind: gain}}``;
        ap50 and costs are fractions, None without objects.
    """
    kind = found.kind
    # Of those aimed at an object that is not found, the best (of equals: the first) can be right.
    mended = np.zeros(len(kind), bool)
    rows = np.flatnonzero(found.target >= 0)
    rows = rows[~found.object_found[found.target[rows]]]
    order = np.lexsort((found.rank[rows], -found.score[rows], found.target[rows]))
    _, first = np.unique(found.target[rows[order]], return_index=True)
    mended[rows[order[first]]] = True
    fixed = {name: kind == _OF[name] for name in KINDS[:5]}
    aimed = np.zeros(len(found.object_counts), bool)
    aimed[found.target[found.target >= 0]] = True
    lost = found.object_counts & ~found.object_found & ~aimed
    right, seen = kind == _OF["right"], found.counted
    base = _ap50(found, found.category, right, seen, found.object_counts, n_categories)
    cost: dict[str, float | None] = {}
    for name in KINDS:
        hit, counted, category, objects = right, seen, found.category, found.object_counts
        if name == "missed":
            objects = objects & ~lost
        else:
            better = mended & fixed[name]
            hit, counted = right | better, seen & (~fixed[name] | better)
            category = np.where(better, found.object_category[found.target], category)
        value = _ap50(found, category, hit, counted, objects, n_categories)
        cost[name] = None if base is None or value is None else value - base
    count = {name: int(of.sum()) for name, of in fixed.items()} | {"missed": int(lost.sum())}
    totals = {"objects": int(found.object_counts.sum()), "detections": int(seen.sum())}
    return {"ap50": base, **totals, "right": int(right.sum()), "count": count, "cost": cost}


def _ap50(
    found: Found, category: Int, hit: Bool, counted: Bool, objects: Bool, n_categories: int
) -> float | None:
    """Returns the mean over classes of the AP at one threshold; None without objects."""
    totals = np.bincount(found.object_category[objects], minlength=n_categories)
    rows = np.flatnonzero(counted)
    keys = (found.rank[rows], found.image[rows], -found.score[rows], category[rows])
    order = rows[np.lexsort(keys)]
    borders = np.searchsorted(category[order], np.arange(n_categories + 1))
    values = np.full(n_categories, np.nan)
    for k in np.flatnonzero(totals):
        mine = hit[order[borders[k] : borders[k + 1]]]
        values[k] = interpolated_precision(
            mine[None], np.ones((1, len(mine)), bool), int(totals[k])
        ).mean()
    return mean_defined(values)
