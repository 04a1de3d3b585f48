"""Differences between two systems and how sure they are: studentised bootstrap by whole images or videos.

The resampled unit is the cluster (an image, or a video for video sets), because instances of one
image share their difficulty. The difference of a resample is divided by its own standard error
(bootstrap-t: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5). Its
p-value is an average of the equal-tailed one, which follows skewed differences, and the symmetric
one, which does not break down with heavy tails (Hall, The Bootstrap and Edgeworth Expansion, 1992,
section 3.6); the interval holds the values with a p-value above 5 %. Which weight, and from how
many clusters on, was chosen by measurement: docs/statistics.md. Whether a difference counts as
better or worse is decided in one place, `hqsam_metrics.verdicts`.

Seeds are fixed: the same values give the same interval.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Stratum = tuple[Float, NDArray[Any]]

REPLICATES = 4000
LEVEL = 0.95
SEED = 20230602
# Weight of the symmetric p-value. At 8 images 0.2 to 0.35 keep normal, skewed and heavy-tailed
# differences within 3.5 to 6.5 %; with 0 heavy tails exceed it, with 1 skewed ones do.
SYMMETRIC = 0.3
MIN_CLUSTERS = 8
MIN_SHARE = 0.75  # of the clusters must differ,
MIN_DIFFERING = 50  # or so many of them
# More clusters than these are resampled in random groups of equal size. A mean over groups has the
# variance and the skewness of the mean over clusters, so nothing is lost but draws.
GROUPS = 1000


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and how sure it is.

    Attributes:
        mean: of the differences, in their unit.
        low, high: bounds of the 95 % interval; NaN if there are too few clusters to tell.
        p: two-sided p-value of "the difference is zero", NaN if there are too few clusters.
        n: units.
        clusters: images or videos.
        differing: clusters with a difference that is not exactly zero.
        too_few: why there are too few clusters to tell; empty if there are enough.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    clusters: int
    differing: int
    too_few: str = ""


@dataclass(frozen=True)
class SeedNoise:
    """How far a difference moves with the seeds that the systems were trained with.

    Attributes:
        error: standard error of the difference from the seeds alone, in its unit.
        freedom: degrees of freedom of `error`; 0: the seeds are no part of the question.
    """

    error: float = 0.0
    freedom: int = 0


FIXED = SeedNoise()
"""The systems are compared as they are: other seeds are no part of the question."""


def paired(
    difference: Float, cluster: Any, *, replicates: int = REPLICATES, seed: int = SEED
) -> Difference | None:
    """Bootstraps the mean of paired differences.

    Args:
        difference: float64 [n], one value per unit; NaN (undefined) units are left out.
        cluster: [n], the image or video of each unit.
        replicates: resamples.
        seed: of the draws.

    Returns:
        The difference, None without any defined unit.

    Raises:
        ValueError: there are not as many clusters as differences.
    """
    return stratified([(difference, cluster)], replicates=replicates, seed=seed)


def stratified(
    strata: Sequence[Stratum],
    *,
    replicates: int = REPLICATES,
    seed: int = SEED,
    noise: SeedNoise = FIXED,
) -> Difference | None:
    """Bootstraps the unweighted mean over several sets of the mean paired difference; each set is resampled on its own.

    Args:
        strata: (difference, cluster) of each set, see `paired`.
        replicates: resamples.
        seed: of the draws.
        noise: of the seeds that the systems were trained with (`hqsam_metrics.seeds`).

    Returns:
        The difference, None if a set has no defined unit.
    """
    sets = [_clustered(np.asarray(d, np.float64), c) for d, c in strata]
    if not sets or any(not len(counts) for _, counts, _ in sets):
        return None
    n = int(sum(counts.sum() for _, counts, _ in sets))
    clusters = sum(len(counts) for _, counts, _ in sets)
    differing = int(sum(moved.sum() for _, _, moved in sets))
    mean = float(np.mean([sums.sum() / counts.sum() for sums, counts, _ in sets]))
    why = too_few([counts for _, counts, _ in sets], differing)
    groups = [_grouped(sums, counts, seed) for sums, counts, _ in sets]
    return inferred(
        mean, groups, n, clusters, differing, why, replicates=replicates, seed=seed, noise=noise
    )


def inferred(
    mean: float,
    sets: Sequence[tuple[Float, Float]],
    n: int,
    clusters: int,
    differing: int,
    why: str = "",
    *,
    replicates: int = REPLICATES,
    seed: int = SEED,
    noise: SeedNoise = FIXED,
) -> Difference:
    """Bootstraps an unweighted mean over several sets of the mean over clusters of what each of them contributes.

    Args:
        mean: the difference itself.
        sets: sum and number of the contributions of each cluster, of each set: float64 [k] each.
        n: units.
        clusters: images or videos.
        differing: clusters with a difference.
        why: there are too few clusters; empty if there are enough.
        replicates: resamples.
        seed: of the draws.
        noise: of the seeds that the systems were trained with (`hqsam_metrics.seeds`).
    """
    if why or not differing:
        same = 0.0 if not differing else nan
        return Difference(mean, same, same, nan, n, clusters, differing, why)
    error, draws = _studentised(sets, replicates, seed)
    if noise.error:
        # The seeds are too few to be drawn again: Student's t stands for their draws.
        t = np.random.default_rng([seed, noise.freedom]).standard_t(noise.freedom, replicates)
        both = float(np.hypot(error, noise.error))
        error, draws = both, (error * draws + noise.error * t) / both
    if not error:  # every cluster differs by the same
        return Difference(mean, mean, mean, _p_value(inf, draws), n, clusters, differing)
    low, high = mean - error * _critical(draws), mean + error * _critical(-draws)
    return Difference(mean, low, high, _p_value(mean / error, draws), n, clusters, differing)


def _clustered(difference: Float, cluster: Any) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Returns sum, number, and whether any is not zero, of the defined differences of each cluster: [k] each."""
    names = np.asarray(cluster)
    if names.shape != difference.shape or difference.ndim != 1:
        raise ValueError(
            f"clusters {names.shape} and differences {difference.shape} must be equally long lists"
        )
    keep = ~np.isnan(difference)
    place = np.unique(names[keep], return_inverse=True)[1].reshape(-1)
    values = difference[keep]
    moved = np.bincount(place, weights=values != 0) > 0
    return (
        np.asarray(np.bincount(place, weights=values), np.float64),
        np.bincount(place).astype(np.float64),
        moved,
    )


def too_few(counts: Sequence[Float], differing: int) -> str:
    """Returns why differences of clusters of these sizes cannot be told from noise; empty if they can.

    Args:
        counts: units of each cluster, of each set: float64 [k].
        differing: clusters, of all sets, with a difference that is not exactly zero.
    """
    clusters = sum(map(len, counts))
    for sizes in counts:
        # Kish's effective number: how many clusters of one size would give the same variance. The
        # more unequal the sizes, the more it must be: skewed differences need it, by measurement.
        effective = float(sizes.sum() ** 2 / (sizes**2).sum())
        wanted = (MIN_CLUSTERS * len(sizes)) ** 0.5
        if len(sizes) < MIN_CLUSTERS:
            return f"{len(sizes)} images or videos; it takes {MIN_CLUSTERS}"
        if effective < wanted - 1e-9:
            return (
                f"{len(sizes)} images or videos of so unequal sizes that they count as "
                f"{effective:.1f}; it takes {wanted:.1f}"
            )
    if differing and differing < min(MIN_DIFFERING, MIN_SHARE * clusters):
        return f"only {differing} of {clusters} images or videos differ"
    return ""


def _grouped(sums: Float, counts: Float, seed: int) -> tuple[Float, Float]:
    """Joins many clusters to `GROUPS` groups, at random."""
    if len(sums) <= GROUPS:
        return sums, counts
    place = np.random.default_rng(seed).permutation(np.arange(len(sums)) % GROUPS)
    joined = [np.asarray(np.bincount(place, weights=w), np.float64) for w in (sums, counts)]
    return joined[0], joined[1]


def _studentised(
    sets: Sequence[tuple[Float, Float]], replicates: int, seed: int
) -> tuple[float, Float]:
    """Returns the standard error of the mean over sets, and the studentised deviation of each resample: float64 [R]."""
    variance, off, spread = 0.0, np.zeros(replicates), np.zeros(replicates)
    for place, (sums, counts) in enumerate(sets):
        k, total = len(sums), counts.sum()
        rest = sums - sums.sum() / total * counts
        scale = k / (k - 1) / len(sets) ** 2
        variance += scale * float((rest**2).sum()) / total**2
        terms = np.stack([rest, counts, rest**2, rest * counts, counts**2], axis=1)
        drawn = weights(k, replicates, seed + place).astype(np.float64) @ terms
        moved = drawn[:, 0] / drawn[:, 1]
        square = drawn[:, 2] - 2 * moved * drawn[:, 3] + moved**2 * drawn[:, 4]
        off += moved / len(sets)
        spread += scale * np.maximum(square, 0) / drawn[:, 1] ** 2
    # A resample of equal values only: its deviation has no error.
    alike = spread <= 1e-12 * variance
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = off / np.sqrt(np.where(alike, 0.0, spread))
    draws[alike & (np.abs(off) <= 1e-9 * np.sqrt(variance))] = 0.0
    return float(np.sqrt(variance)), draws


@functools.lru_cache(maxsize=16)
def weights(k: int, replicates: int, seed: int) -> NDArray[np.uint8]:
    """Returns how often each of `k` clusters is in each resample: uint8 [R, k]; the same array at each call, not to be changed."""
    rng = np.random.default_rng(seed)
    out = np.empty((replicates, k), np.uint8)
    for row in out:
        row[:] = np.bincount(rng.integers(0, k, k), minlength=k)
    out.flags.writeable = False
    return out


def _p_value(t: float, draws: Float) -> float:
    """Returns the two-sided p-value of a studentised difference from its resamples; ties count against it."""
    along = draws if t > 0 else -draws
    symmetric, tail = (np.count_nonzero(side >= abs(t)) for side in (np.abs(draws), along))
    return float(_averaged(symmetric, tail, len(draws)))


def _averaged(symmetric: Any, tail: Any, replicates: int) -> Any:
    """Averages the p-values of numbers of resamples beyond a value: on both sides, and on its own side."""
    equal = np.minimum(1.0, 2 * (tail + 1) / (replicates + 1))
    return SYMMETRIC * (symmetric + 1) / (replicates + 1) + (1 - SYMMETRIC) * equal


def _critical(draws: Float) -> float:
    """Returns how many standard errors below the mean a value has a p-value of 1 - `LEVEL`; inf if none has."""
    size = np.sort(np.abs(draws))
    tail = len(draws) - np.searchsorted(np.sort(draws), size, side="left")
    p = _averaged(np.arange(len(draws), 0, -1), tail, len(draws))
    beyond = np.flatnonzero(p <= 1 - LEVEL)
    return float(size[max(beyond[0] - 1, 0)]) if len(beyond) else inf
