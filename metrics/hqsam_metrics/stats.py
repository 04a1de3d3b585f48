"""Paired bootstrap of the difference of two systems, by whole images or videos."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
# Weights drawn at a time: bounds the memory to some tens of MB.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A difference b - a with its percentile interval.

    Attributes:
        a: mean of the first system.
        b: mean of the second system.
        difference: mean of b - a over the pairs that are defined in both.
        low: lower end of the interval.
        high: upper end.
        p_value: two-sided, see `p_value`.
        n_pairs: pairs used.
        n_clusters: images or videos resampled.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    n_pairs: int
    n_clusters: int


def cluster_numbers(clusters: Any, size: int) -> NDArray[np.int64]:
    """Numbers the clusters 0..k-1: int64 [size].

    Args:
        clusters: [size] names or numbers of the images or videos.
        size: number of values that they belong to.

    Raises:
        ValueError: there are not so many.
    """
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    index = index.reshape(-1).astype(np.int64)
    if len(index) != size:
        raise ValueError(f"{len(index)} clusters for {size} values")
    return index


def resample_means(values: Float, cluster: NDArray[np.int64], n: int, rng: np.random.Generator) -> Float:
    """Returns the means of `n` resamples of whole clusters, drawn with replacement: float64 [n].

    Args:
        values: float64 [m].
        cluster: int64 [m], 0..k-1, all of them used.
        n: resamples.
        rng: source of randomness.
    """
    sums = np.bincount(cluster, weights=values)
    counts = np.bincount(cluster).astype(np.float64)
    k = len(sums)
    out = np.empty(n)
    step = max(1, _BLOCK // k)
    share = np.full(k, 1 / k)
    for begin in range(0, n, step):
        weights = rng.multinomial(k, share, size=min(step, n - begin))
        out[begin : begin + len(weights)] = (weights @ sums) / (weights @ counts)
    return out


def percentile_interval(draws: Float, level: float = 0.95) -> tuple[float, float]:
    """Returns the ends of the percentile interval of bootstrap draws (float64 [n])."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(draws: Float, clusters: int) -> float:
    """Returns the two-sided p-value of "the difference is zero" from bootstrap draws; ties count for both sides.

    Never below 2^(1 - clusters), the least that a sign-flip test of so few clusters could give: the bootstrap alone would
    call the difference of two agreeing videos significant.

    Args:
        draws: float64 [n], differences of the resamples.
        clusters: number of images or videos that were resampled, at least 1.
    """
    size = len(draws) + 1
    below, above = (int(np.count_nonzero(side)) + 1 for side in (draws <= 0, draws >= 0))
    return min(1.0, max(2 * min(below, above) / size, 2.0 ** (1 - clusters)))


def paired_bootstrap(
    *,
    a: Any,
    b: Any,
    clusters: Any,
    n: int = 10_000,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Interval:
    """Returns the mean difference b - a of paired values with a bootstrap interval.

    Clusters (images, videos) are resampled as a whole, because the instances of one image are not independent.

    Args:
        a: [m] values of the first system, one an instance; NaN where undefined.
        b: [m] values of the second system for the same instances.
        clusters: [m] names or numbers of what is resampled.
        n: resamples.
        rng: source of randomness; the same state gives the same interval.
        level: coverage of the interval.

    Returns:
        The interval; NaN ends with fewer than two clusters, NaN everywhere without a pair.

    Raises:
        ValueError: lengths differ, or n or level make no sense.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"a {a.shape} and b {b.shape} must be equally long lists")
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n = {n} and level = {level}: n must be at least 1, level between 0 and 1")
    cluster = cluster_numbers(clusters, len(a))
    defined = np.flatnonzero(~(np.isnan(a) | np.isnan(b)))
    a, b = a[defined], b[defined]
    cluster = cluster_numbers(cluster[defined], len(defined))
    if not len(a):
        return Interval(nan, nan, nan, nan, nan, nan, 0, 0)
    mean_a, mean_b, difference = float(a.mean()), float(b.mean()), float((b - a).mean())
    k = int(cluster.max()) + 1
    if k < 2:
        return Interval(mean_a, mean_b, difference, nan, nan, nan, len(a), k)
    draws = resample_means(b - a, cluster, n, rng)
    low, high = percentile_interval(draws, level)
    return Interval(mean_a, mean_b, difference, low, high, p_value(draws, k), len(a), k)
