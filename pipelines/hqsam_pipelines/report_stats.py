"""Paired differences with bootstrap intervals, clustered by image or video.

The resampled unit is the cluster (an image, or a video for video sets), because instances of one image share
their difficulty. Seeds are fixed: the same table gives the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hqsam_metrics.bootstrap import resample_means
from numpy.typing import NDArray

Float = NDArray[np.float64]
Stratum = tuple[Float, NDArray[Any]]

REPLICATES = 4000
LEVEL = 0.95
_SEED = 20230602


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and how sure it is.

    Attributes:
        mean: of the differences, in their unit.
        low, high: bounds of the 95 % percentile interval; NaN with fewer than two clusters.
        p: two-sided bootstrap p-value; 1 when every difference is zero, NaN with fewer than two clusters. It is never
            below 2^(1 - clusters), the least that a sign-flip test of so few clusters could give: the bootstrap alone
            would call the difference of two agreeing videos significant.
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


def paired(difference: Float, cluster: NDArray[Any]) -> Difference | None:
    """Bootstraps the mean of paired differences.

    Args:
        difference: float64 [n], one value per unit; NaN (undefined) units are left out.
        cluster: [n], the image or video of each unit.

    Returns:
        The difference, None without any defined unit.
    """
    return stratified([(difference, cluster)])


def stratified(strata: Sequence[Stratum]) -> Difference | None:
    """Bootstraps the unweighted mean over several sets of the mean paired difference; each set is resampled on its own.

    Args:
        strata: (difference, cluster) of each set, see `paired`.

    Returns:
        The difference, None if a set has no defined unit.
    """
    defined = [(d[~np.isnan(d)], c[~np.isnan(d)]) for d, c in strata]
    if not defined or any(not len(d) for d, _ in defined):
        return None
    mean = float(np.mean([d.mean() for d, _ in defined]))
    n = sum(len(d) for d, _ in defined)
    clusters = [len(np.unique(c)) for _, c in defined]
    if min(clusters) < 2:
        return Difference(mean, np.nan, np.nan, np.nan, n, sum(clusters))
    rng = np.random.default_rng(_SEED)
    draws = np.mean([_replicates(d, c, rng) for d, c in defined], axis=0)
    return percentile_difference(mean, draws, n=n, clusters=sum(clusters))


def percentile_difference(mean: float, draws: Float, *, n: int, clusters: int) -> Difference:
    """A difference with the percentile interval of its bootstrap draws (float64 [R])."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p = max(p_value(draws), 2.0 ** (1 - clusters)) if clusters > 1 else np.nan
    return Difference(mean, float(low), float(high), p, n, clusters)


def _replicates(difference: Float, cluster: NDArray[Any], rng: np.random.Generator) -> Float:
    _, index = np.unique(cluster, return_inverse=True)
    return resample_means(difference, index.reshape(-1).astype(np.int64), REPLICATES, rng)


def p_value(draws: Float) -> float:
    """Two-sided p-value of "the difference is zero" from bootstrap draws; ties count for both sides."""
    size = len(draws) + 1
    below, above = (np.sum(draws <= 0) + 1) / size, (np.sum(draws >= 0) + 1) / size
    return float(min(1.0, 2 * min(below, above)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; NaN entries stay NaN and do not count as tests."""
    p = np.asarray(p_values, float)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected = p.copy()
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return [float(value) for value in corrected]
