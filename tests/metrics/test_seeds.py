"""Differences of means over several seeds: what the seeds add to the error of the images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hqsam_metrics.ap.resample import Matches, differences, weighted_ap
from hqsam_metrics.seeds import seed_noise, two_level
from hqsam_metrics.stats import paired, stratified
from tests.metrics.test_resample import packed

IMAGES = np.arange(40)


def values(seed: int, k: int, *, spread: float, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return shift + spread * rng.normal(size=(k, 1)) + 0.2 * rng.normal(size=(k, len(IMAGES)))


def test_the_error_of_seeds_is_that_of_two_means_with_a_pooled_variance() -> None:
    noise = seed_noise(np.array([1.0, 2, 3]), np.array([5.0, 9]))
    assert noise.freedom == 3
    assert noise.error == pytest.approx(np.sqrt((2 + 8) / 3 * (1 / 3 + 1 / 2)))
    assert seed_noise(np.array([1.0]), np.array([5.0])).freedom == 0


def test_one_seed_on_each_side_is_a_question_about_images_alone() -> None:
    a, b = values(1, 1, spread=0), values(2, 1, spread=0, shift=0.1)
    assert two_level([(a, b, IMAGES)]) == stratified([(b[0] - a[0], IMAGES)])


def test_seeds_that_differ_widen_the_interval_and_seeds_that_agree_do_not() -> None:
    far = two_level([(values(1, 3, spread=1), values(2, 3, spread=1), IMAGES)])
    near = two_level([(values(1, 3, spread=0), values(2, 3, spread=0), IMAGES)])
    alone = paired(values(2, 3, spread=1).mean(0) - values(1, 3, spread=1).mean(0), IMAGES)
    assert far is not None and near is not None and alone is not None
    assert far.mean == pytest.approx(alone.mean)
    assert alone.p < 0.01 < 0.05 < far.p  # the images alone call chance a change
    assert far.high - far.low > 10 * (near.high - near.low)
    assert far.low < far.mean < far.high


def test_a_side_with_one_seed_has_the_spread_of_the_other() -> None:
    three = two_level([(values(1, 1, spread=1), values(2, 3, spread=1), IMAGES)])
    assert three is not None
    assert three.p > 0.05


def test_the_seeds_of_several_sets_are_the_same_trainings() -> None:
    """What one seed gains in one set it loses in the other: their mean does not move with the seed."""
    a, b = values(1, 3, spread=0), values(2, 3, spread=0)
    swing = np.array([[3.0], [-3.0], [0.0]])
    both = two_level([(a + swing, b, IMAGES), (a - swing, b, IMAGES)])
    single = two_level([(a + swing, b, IMAGES)])
    assert both is not None and single is not None
    assert both.high - both.low < (single.high - single.low) / 5


def test_units_without_a_value_for_some_seed_are_left_out() -> None:
    a, b = values(1, 2, spread=0), values(2, 2, spread=0)
    a[1, 0] = np.nan
    found = two_level([(a, b, IMAGES)])
    assert found == two_level([(a[:, 1:], b[:, 1:], IMAGES[1:])])
    assert found is not None and found.n == len(IMAGES) - 1
    assert two_level([(np.full((2, 40), np.nan), b, IMAGES)]) is None


def weaker(matches: Matches, seed: int) -> Matches:
    """The same detections, some of which miss their object."""
    kept = np.random.default_rng(seed).random(len(matches.image)) < 0.4
    return replace(
        matches, hit={name: np.where(kept, bits, 0) for name, bits in matches.hit.items()}
    )


def test_ap_over_seeds_is_the_difference_of_the_means_with_the_error_of_both() -> None:
    whole = packed(0, images=180)
    sides = [[weaker(whole, seed) for seed in seeds] for seeds in ((1, 2, 3), (4, 5))]
    once = np.ones((1, 180), np.uint16)
    means = [100 * np.mean([weighted_ap(m, "AP", once) for m in side]) for side in sides]
    found = differences(*sides, ["AP"])["AP"]
    assert found.mean == pytest.approx(means[1] - means[0])
    ap = np.array([100 * weighted_ap(m, "AP", once)[0] for m in (*sides[0], *sides[1])])
    noise = seed_noise(ap[:3], ap[3:])
    assert found.high - found.low > 2 * 2.7 * noise.error  # t with 3 degrees of freedom: 3.2
    same = differences([whole, whole], [whole], ["AP"])["AP"]
    assert (same.mean, same.differing) == (0, 0)
