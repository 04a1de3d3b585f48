"""Paired differences with bootstrap intervals, clustered by image or video.

The resampled unit is the cluster (an image, or a video for video sets), because instances of one image share
their difficulty. The resampling is that of `hqsam_metrics.stats`; here are fixed seeds (the same table gives the same
interval), means over several sets, and the correction for many tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_metrics.stats import cluster_numbers, p_value, percentile_interval, resample_means

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
        p: two-sided bootstrap p-value; 1 when every difference is zero, NaN with fewer than two clusters.
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
    draws = np.mean([resample_means(d, cluster_numbers(c, len(d)), REPLICATES, rng) for d, c in defined], axis=0)
    return percentile_difference(mean, draws, n=n, clusters=sum(clusters))


def percentile_difference(mean: float, draws: Float, *, n: int, clusters: int) -> Difference:
    """A difference with the percentile interval of its bootstrap draws (float64 [R])."""
    p = p_value(draws, clusters) if clusters > 1 else np.nan
    return Difference(mean, *percentile_interval(draws, LEVEL), p, n, clusters)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; NaN entries stay NaN and do not count as tests."""
    p = np.asarray(p_values, float)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected = p.copy()
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return [float(value) for value in corrected]
