"""AP of resamples: images (or videos) are drawn again, their matches are kept, precision and recall accumulated again.

Matching happens inside an image (and category), so it need not be done again for a resample: an
image that is drawn twice counts twice, one that is not drawn does not count. AP of a resample is
then exact, but for the order of equal scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.runs import Int
from hqsam_metrics.ap import accumulate
from hqsam_metrics.ap.weighted import category_precision
from hqsam_metrics.seeds import seed_noise
from hqsam_metrics.stats import SEED, Difference, SeedNoise, inferred, too_few

Float = NDArray[np.float64]
Bits = NDArray[np.uint16]
Small = NDArray[np.int32]

# Groups of images that are left out in turn; their pulls on AP are resampled like the differences
# of a mean. Few and large ones: AP is no smooth function of single images, and 200 groups of 287
# images overestimate its error by 28 %, 20 by 4 %.
GROUPS = 20


@dataclass(frozen=True)
class Truth:
    """What is drawn, and how much ground truth it holds.

    Attributes:
        ids: of the images (videos) [I], as text.
        cluster: int32 [I], what is drawn as a whole: the image, or its video.
        stratum: int32 [I], the part of the set that is drawn on its own (a set of SGinW); AP is the
            mean over the parts.
            Negative: of no part, always counted once.
        image, category: int32 [c], places of the image and of the category of each cell with ground
            truth.
        objects: by name of an AP: int32 [c], ground truth that counts.
    """

    ids: list[str]
    cluster: Small
    stratum: Small
    image: Small
    category: Small
    objects: Mapping[str, Small]


@dataclass(frozen=True)
class Matches:
    """Which detections of one system are right, sorted by category and falling score.

    Bit t of a number stands for `accumulate.IOU_THRESHOLDS` [t].

    Attributes:
        truth: what they were matched with.
        image, category: int32 [n], places.
        hit: by name of an AP: uint16 [n], true positive.
        void: by name of an AP: uint16 [n], counts neither as true nor as false positive.
    """

    truth: Truth
    image: Small
    category: Small
    hit: Mapping[str, Bits]
    void: Mapping[str, Bits]


def matches_of(
    partials: Mapping[str, accumulate.Partial],
    bins: Sequence[accumulate.AreaRange],
    *,
    limit: int,
    ids: Iterable[object],
    cluster: Int,
    stratum: Int | None = None,
) -> Matches:
    """Packs partial results of a whole set.

    Args:
        partials: by name of the AP over all sizes (``AP``, ``AP_B``); of the same detections in the
            same order.
        bins: their area ranges; the AP of each has the range's letter behind its name.
        limit: detections that count per group.
        ids: of the images (videos), in the order of their places.
        cluster: int64 [I], see `Truth`.
        stratum: int64 [I], see `Truth`; None: one part.
    """
    first = next(iter(partials.values()))
    order = np.lexsort((first.rank, first.image, -first.score, first.category))
    order = order[first.rank[order] < limit]
    hit, void, objects = {}, {}, {}
    # Image and category of each cell with ground truth in any partial, as one number.
    codes = {name: (p.gt_image << 32) + p.gt_category for name, p in partials.items()}
    cells = np.unique(np.concatenate(list(codes.values())))
    for name, partial in partials.items():
        hits, voids = partial.bits(order)
        place = np.searchsorted(cells, codes[name])
        for a, area in enumerate(bins):
            hit[name + area.name], void[name + area.name] = hits[a], voids[a]
            there = partial.gt_counts[a].astype(np.float64)
            objects[name + area.name] = np.bincount(place, there, len(cells)).astype(np.int32)
    parts = np.zeros(len(cluster), np.int64) if stratum is None else stratum
    truth = Truth(
        [str(i) for i in ids],
        _small(cluster),
        _small(parts),
        _small(cells >> 32),
        _small(cells & 0xFFFFFFFF),
        objects,
    )
    return Matches(truth, _small(first.image[order]), _small(first.category[order]), hit, void)


def joined(parts: Sequence[Matches]) -> Matches:
    """Joins the matches of sets without common images and categories: each is a stratum of the result."""
    truths = [part.truth for part in parts]
    images = np.cumsum([0, *(len(truth.ids) for truth in truths)])
    first = np.cumsum(
        [0, *(1 + max([-1, *t.category, *p.category]) for t, p in zip(truths, parts, strict=True))]
    )

    def shifted(columns: Iterable[Small], by: Int) -> Small:
        return _small(np.concatenate([c + by[n] for n, c in enumerate(columns)]))

    names = parts[0].hit
    truth = Truth(
        [f"{n}/{one}" for n, truth in enumerate(truths) for one in truth.ids],
        shifted((t.cluster for t in truths), images),
        shifted((np.zeros_like(t.stratum) for t in truths), np.arange(len(truths))),
        shifted((t.image for t in truths), images),
        shifted((t.category for t in truths), first),
        {name: np.concatenate([t.objects[name] for t in truths]) for name in names},
    )
    return Matches(
        truth,
        shifted((p.image for p in parts), images),
        shifted((p.category for p in parts), first),
        {name: np.concatenate([p.hit[name] for p in parts]) for name in names},
        {name: np.concatenate([p.void[name] for p in parts]) for name in names},
    )


def _small(values: Int) -> Small:
    return values.astype(np.int32)


def differences(
    a: Matches | Sequence[Matches],
    b: Matches | Sequence[Matches],
    names: Iterable[str],
    *,
    factor: float = 100.0,
) -> dict[str, Difference]:
    """Returns the paired difference b - a of each AP that both sides have, with its interval.

    Args:
        a: matches of one system; of several trainings of it with other seeds, the difference is
            that of the means over them (`hqsam_metrics.seeds`).
        b: matches of the other, with the same ground truth.
        names: of the APs.
        factor: what the difference is multiplied with.

    Raises:
        ValueError: the two sides are not about the same images.
    """
    sides = [[side] if isinstance(side, Matches) else list(side) for side in (a, b)]
    first, *others = (matches for side in sides for matches in side)
    truth = first.truth
    for other in others:
        if truth.ids != other.truth.ids or not np.array_equal(truth.cluster, other.truth.cluster):
            raise ValueError("the ground truth is not of the same images")
    deleted, sets = deletions(truth)
    # The first row is the whole set, once: its AP is the official one.
    weights = np.vstack([np.ones((1, len(truth.ids)), np.uint16), deleted])
    moved = max(differing(first, other) for other in others)
    found = {}
    for name in names:
        if all(name in matches.hit for matches in (first, *others)):
            left, right = (
                factor * np.stack([weighted_ap(matches, name, weights) for matches in side])
                for side in sides
            )
            points = right.mean(axis=0) - left.mean(axis=0)
            if not np.isnan(points[0]):
                noise = seed_noise(left[:, 0], right[:, 0])
                found[name] = _difference(points, sets, truth, name, moved, noise)
    return found


def _difference(
    points: Float, sets: Sequence[Int], truth: Truth, name: str, moved: int, noise: SeedNoise
) -> Difference:
    """Returns a difference from its values on the whole set and without each group (NaN: undefined without it)."""
    clusters = np.unique(truth.cluster, return_inverse=True)[1].reshape(-1)
    # The last images may hold no ground truth.
    objects = np.bincount(clusters[truth.image], truth.objects[name], int(clusters.max()) + 1)
    strata = [np.unique(clusters[truth.stratum == s]) for s in np.unique(truth.stratum) if s >= 0]
    why = too_few([np.maximum(objects[mine], 1) for mine in strata], moved)
    if np.isnan(points).any():
        why = why or "without one of the images or videos there is no ground truth"
    # Jackknife values of the influence of a group (Efron and Tibshirani 1993, section 11.5).
    pull = [(len(rows) - 1) * len(sets) * (points[0] - points[1 + rows]) for rows in sets]
    centred = [(p - p.mean() + points[0], np.ones(len(p))) for p in pull]
    n = int(truth.objects[name].sum())
    return inferred(float(points[0]), centred, n, len(objects), moved, why, noise=noise)


def deletions(truth: Truth, groups: int = GROUPS) -> tuple[NDArray[np.uint16], list[Int]]:
    """Leaves out one group of clusters after the other, each cluster once.

    Args:
        truth: whose images are left out.
        groups: of a stratum at most; the clusters of larger ones are grouped at random.

    Returns:
        How often each image counts, without each group: uint16 [g, I]; the rows of each stratum.
    """
    rng = np.random.default_rng(SEED)
    rows: list[NDArray[np.uint16]] = []
    sets: list[Int] = []
    for part in np.unique(truth.stratum[truth.stratum >= 0]):
        mine = np.flatnonzero(truth.stratum == part)
        place = np.unique(truth.cluster[mine], return_inverse=True)[1].reshape(-1)
        size = int(place.max()) + 1
        if size > groups:
            place = rng.permutation(np.arange(size) % groups)[place]
        kept = np.ones((min(size, groups), len(truth.ids)), np.uint16)
        kept[place, mine] = 0
        begin = sum(len(before) for before in rows)
        rows.append(kept)
        sets.append(np.arange(begin, begin + len(kept)))
    return np.concatenate(rows), sets


def differing(a: Matches, b: Matches) -> int:
    """Counts the clusters whose matches are not the same; all of them if only the order between clusters is another."""
    every = np.unique(a.truth.cluster)
    columns: list[list[NDArray[Any]]] = [
        [m.image, m.category, *(part[name] for part in (m.hit, m.void) for name in sorted(part))]
        for m in (a, b)
    ]
    if all(np.array_equal(left, right) for left, right in zip(*columns, strict=True)):
        return 0
    sorted_ = []
    for side in columns:
        owner = a.truth.cluster[side[0]]
        order = np.lexsort((side[1], owner))
        sorted_.append((owner[order], np.stack([column[order] for column in side], axis=1)))
    counts = [np.bincount(owner, minlength=int(every.max()) + 1) for owner, _ in sorted_]
    other = counts[0] != counts[1]
    left, right = (side[~other[owner]] for owner, side in sorted_)
    owner = sorted_[0][0][~other[sorted_[0][0]]]
    other[owner[(left != right).any(axis=1)]] = True
    return int(other.sum()) or len(every)


def weighted_ap(matches: Matches, name: str, weights: NDArray[Any]) -> Float:
    """Returns AP over all thresholds with a weight for each image, for many vectors of weights at once.

    Args:
        matches: of one system.
        name: of the AP.
        weights: [R, I], how often each image counts, for R resamples; whole numbers below 256 are
            the fastest.

    Returns:
        float64 [R]: the mean over the strata of the mean over their categories; NaN for a resample
        in which a stratum has no ground truth.
    """
    truth, objects = matches.truth, matches.truth.objects[name]
    there = np.flatnonzero(objects)
    categories, cell = np.unique(truth.category[there], return_inverse=True)
    if not len(categories):
        return np.full(len(weights), np.nan)
    columns = _by_image(weights)
    counts = np.zeros((len(categories), len(weights)))
    order = np.argsort(cell, kind="stable")
    part = np.empty(len(categories), np.int64)
    for k, mine in enumerate(np.split(there[order], np.cumsum(np.bincount(cell))[:-1])):
        counts[k] = objects[mine].astype(np.float64) @ columns[truth.image[mine]].astype(np.float64)
        part[k] = truth.stratum[truth.image[mine[0]]]
    rows = np.stack([np.searchsorted(matches.category, categories, s) for s in ("left", "right")])
    values = category_precision(
        matches.image, matches.hit[name], matches.void[name], rows, counts, columns
    )
    parts = []
    for one in np.unique(part):
        defined = counts[part == one] > 0
        total = np.where(defined, values[part == one], 0.0).sum(axis=0)
        n = defined.sum(axis=0)
        parts.append(np.divide(total, n, out=np.full(len(weights), np.nan), where=n > 0))
    return np.asarray(np.mean(parts, axis=0))


def _by_image(weights: NDArray[Any]) -> NDArray[Any]:
    """Returns the weights as [I, R]: uint8 where they are whole numbers below 256, else float64."""
    columns = weights.T
    if weights.dtype.kind != "u":
        columns = columns.astype(np.float64)
    if columns.size and (columns.min() < 0 or columns.max() > 255):
        return np.ascontiguousarray(columns, np.float64)
    small = columns.astype(np.uint8, order="C")
    return small if np.array_equal(small, columns) else np.ascontiguousarray(columns, np.float64)
