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
        p_value: two-sided, from the share of resamples on the other side of 0 (at least 1 / (n + 1)).
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


def _clusters(clusters: Any, size: int) -> NDArray[np.int64]:
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
    cluster = _clusters(clusters, len(a))
    defined = np.flatnonzero(~(np.isnan(a) | np.isnan(b)))
    a, b = a[defined], b[defined]
    cluster = _clusters(cluster[defined], len(defined))
    if not len(a):
        return Interval(nan, nan, nan, nan, nan, nan, 0, 0)
    mean_a, mean_b, difference = float(a.mean()), float(b.mean()), float((b - a).mean())
    k = int(cluster.max()) + 1
    if k < 2:
        return Interval(mean_a, mean_b, difference, nan, nan, nan, len(a), k)
    draws = resample_means(b - a, cluster, n, rng)
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    below, above = (int(np.count_nonzero(side)) for side in (draws <= 0, draws >= 0))
    p_value = min(1.0, 2 * (min(below, above) + 1) / (n + 1))
    return Interval(mean_a, mean_b, difference, float(low), float(high), p_value, len(a), k)
