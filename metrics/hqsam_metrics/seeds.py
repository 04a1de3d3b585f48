"""Differences between trainings of which each was repeated with several seeds: both seeds and images are drawn.

A side is trained with k seeds and every seed is scored on the same images. Compared are the means
over the seeds. Their difference moves with the images and with the seeds, two crossed sources of
error, as cases and readers do in radiology (Obuchowski and Rockette, Communications in Statistics, Simulation 24,
1995; Hillis, Statistics in Medicine 26, 2007). The images' part is bootstrapped as in
`hqsam_metrics.stats`. The seeds' part is the variance of the seeds' own values, pooled over both
sides; a few seeds cannot be drawn again, so Student's t stands for them, and both parts are added
draw by draw as in the solution of Behrens and Fisher (Robinson, Ann. Statist. 4, 1976). Both parts
hold what seed and image do together, and this solution errs to the safe side: a difference is
called too rarely rather than too often. docs/statistics.md has the measured rates.

With one seed on one side, its spread is taken to be the other side's. With one seed on both sides
nothing is known of it: the result is that of `hqsam_metrics.stats.stratified`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hqsam_metrics.stats import FIXED, Difference, Float, SeedNoise, stratified

SeedStratum = tuple[Float, Float, Any]
"""Values of one set: of side A float64 [seeds of A, n], of side B float64 [seeds of B, n], and the
image or video of each of the n units."""


def seed_noise(a: Float, b: Float) -> SeedNoise:
    """Measures what the seeds contribute to the error of the difference of two means over seeds.

    Args:
        a: the value of each seed of one side, float64 [ka].
        b: of the other, float64 [kb].

    Returns:
        `FIXED` if there is one seed on each side.
    """
    freedom = len(a) + len(b) - 2
    if not freedom:
        return FIXED
    pooled = sum(float(((side - side.mean()) ** 2).sum()) for side in (a, b)) / freedom
    return SeedNoise(float(np.sqrt(pooled * (1 / len(a) + 1 / len(b)))), freedom)


def two_level(strata: Sequence[SeedStratum]) -> Difference | None:
    """Infers the difference b - a of the means over seeds, over several sets with equal weight.

    Args:
        strata: the sets; the seeds of a side are the same and in the same order in all. A unit that
            is undefined (NaN) for any seed is left out.

    Returns:
        The difference with the error of seeds and images, None if a set has no defined unit.

    Raises:
        ValueError: there are not as many clusters as units.
    """
    kept = []
    for a, b, cluster in strata:
        defined = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
        kept.append((a[:, defined], b[:, defined], np.asarray(cluster)[defined]))
    if not kept or any(not len(cluster) for *_, cluster in kept):
        return None
    # A set with fewer seeds than the others has no value for the rest.
    seeds = [min(len(part[side]) for part in kept) for side in (0, 1)]
    values = [
        np.mean([part[side][:k].mean(axis=1) for part in kept], axis=0)
        for side, k in enumerate(seeds)
    ]
    differences = [(b.mean(axis=0) - a.mean(axis=0), cluster) for a, b, cluster in kept]
    return stratified(differences, noise=seed_noise(values[0], values[1]))
