"""Differences between two systems and how sure they are: paired bootstrap by whole images or videos.

The resampled unit is the cluster (an image, or a video for video sets), because instances of one
image share their difficulty. Seeds are fixed: the same values give the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Stratum = tuple[Float, NDArray[Any]]

REPLICATES = 4000
LEVEL = 0.95
SEED = 20230602
# Weights drawn at a time: bounds the memory to some tens of MB.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and how sure it is.

    Attributes:
        mean: of the differences, in their unit.
        low, high: bounds of the 95 % percentile interval; NaN with fewer than two clusters.
        p: two-sided bootstrap p-value (see `p_value`), NaN with fewer than two clusters.
        n: units.
        clusters: images or videos.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    clusters: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


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
    strata: Sequence[Stratum], *, replicates: int = REPLICATES, seed: int = SEED
) -> Difference | None:
    """Bootstraps the unweighted mean over several sets of the mean paired difference; each set is resampled on its own.

    Args:
        strata: (difference, cluster) of each set, see `paired`.
        replicates: resamples.
        seed: of the draws.

    Returns:
        The difference, None if a set has no defined unit.
    """
    defined = [_defined(np.asarray(d, np.float64), c) for d, c in strata]
    if not defined or any(not len(d) for d, _ in defined):
        return None
    mean = float(np.mean([d.mean() for d, _ in defined]))
    n = sum(len(d) for d, _ in defined)
    clusters = [int(c.max()) + 1 for _, c in defined]
    if min(clusters) < 2:
        return Difference(mean, nan, nan, nan, n, sum(clusters))
    rng = np.random.default_rng(seed)
    draws = np.mean([resample_means(d, c, replicates, rng) for d, c in defined], axis=0)
    return percentile_difference(mean, draws, n=n, clusters=sum(clusters))


def _defined(difference: Float, cluster: Any) -> tuple[Float, NDArray[np.int64]]:
    """Leaves out undefined values; numbers the clusters of the others."""
    names = np.asarray(cluster)
    if names.shape != difference.shape or difference.ndim != 1:
        raise ValueError(
            f"clusters {names.shape} and differences {difference.shape} must be equally long lists"
        )
    keep = ~np.isnan(difference)
    index = np.unique(names[keep], return_inverse=True)[1]
    return difference[keep], index.reshape(-1).astype(np.int64)


def percentile_difference(mean: float, draws: Float, *, n: int, clusters: int) -> Difference:
    """Returns a difference with the percentile interval of its bootstrap draws (float64 [R])."""
    p = p_value(draws, clusters) if clusters > 1 else nan
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(mean, float(low), float(high), p, n, clusters)


def resample_means(
    values: Float, cluster: NDArray[np.int64], n: int, rng: np.random.Generator
) -> Float:
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


def p_value(draws: Float, clusters: int) -> float:
    """Returns the two-sided p-value of "the difference is zero" from bootstrap draws; ties count for both sides.

    Never below 2^(1 - clusters), the least that a sign-flip test of so few clusters could give: the
    bootstrap alone would call the difference of two agreeing videos significant.

    Args:
        draws: float64 [n], differences of the resamples.
        clusters: number of images or videos that were resampled, at least 1.
    """
    size = len(draws) + 1
    below, above = (int(np.count_nonzero(side)) + 1 for side in (draws <= 0, draws >= 0))
    return min(1.0, max(2 * min(below, above) / size, 2.0 ** (1 - clusters)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values after Holm's step-down correction; NaN entries stay NaN and do not count as tests."""
    p = np.asarray(p_values, float)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected = p.copy()
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return [float(value) for value in corrected]
