"""Differences of several sets, how often they err where there is none, and verdicts of a family."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqsam_metrics.base import FRACTION, Scale
from hqsam_metrics.stats import Difference, paired, stratified
from hqsam_metrics.verdicts import benjamini_hochberg, judge
from perf.metrics import calibration
from tests import FULL

RUNS = 2000 if FULL else 300


def test_the_mean_of_sets_weighs_sets_equally_and_the_smallest_set_must_suffice() -> None:
    sizes = (100, 8)
    sets = [
        (np.full(n, mean) + np.linspace(-1, 1, n), np.arange(n))
        for n, mean in zip(sizes, (1.0, 3.0), strict=True)
    ]
    found = stratified(sets)
    assert found is not None and found.mean == pytest.approx(2.0) and found.n == 108
    # Variances of the two means, each set a half: the small set's is the larger one.
    error = 0.5 * np.sqrt(sum(np.linspace(-1, 1, n).var(ddof=1) / n for n in sizes))
    assert 1.7 < (found.high - found.low) / 2 / error < 3
    few = stratified([sets[0], (np.arange(7.0), np.arange(7))])
    assert few is not None and few.too_few and math.isnan(few.p)


@pytest.mark.parametrize("kind", ["normal", "skewed", "heavy-tailed"])
@pytest.mark.parametrize("n", [8, 16])
def test_verdicts_without_a_difference_are_as_rare_as_they_are_said_to_be(
    kind: str, n: int
) -> None:
    rng = np.random.default_rng(n)
    drawn = (calibration.null_differences(kind, n, False, rng) for _ in range(RUNS))
    _, false = calibration.rate([d for d in (paired(*one) for one in drawn) if d is not None])
    slack = 300 * math.sqrt(0.05 * 0.95 / RUNS)
    assert calibration.LOW - slack <= false <= calibration.HIGH + slack


def test_ap_of_equally_good_systems_is_as_rarely_called_different() -> None:
    from hqsam_metrics.ap.resample import differences

    rng = np.random.default_rng(3)
    pairs = (calibration.null_matches(16, 1, rng) for _ in range(RUNS))
    few, false = calibration.rate([differences(a, b, ["AP"])["AP"] for a, b in pairs])
    assert few < 5 and false <= calibration.HIGH + 300 * math.sqrt(0.05 * 0.95 / RUNS)


def row(p: float, mean: float = 1.0, why: str = "", differing: int = 9) -> Difference:
    return Difference(mean, mean - 1, mean + 1, p, 9, 9, differing, why)


def test_rows_that_cannot_move_or_are_too_few_are_no_tests() -> None:
    lower = Scale(lower_is_better=True)
    rows = [
        (row(0.03), FRACTION),
        (row(0.04, -1.0), FRACTION),
        (row(0.01, -1.0), lower),
        *[(row(math.nan, 0.0, differing=0), FRACTION)] * 5,
        (row(math.nan, why="7 images or videos; it takes 8"), FRACTION),
        (None, FRACTION),
    ]
    found = judge(rows)
    assert [r.verdict for r in found] == [
        "better",
        "worse",
        "better",
        *["cannot move"] * 5,
        "too few to tell",
        "not tested",
    ]
    # Three tests: 0.01 x 3, 0.03 x 3 / 2, 0.04 x 1, each at most what follows it.
    assert [r.p for r in found[:3]] == pytest.approx([0.04, 0.04, 0.03])
    assert {r.tone for r in found[3:]} == {"flat"} and found[8].why
    assert judge([(row(0.03), FRACTION), (row(0.9), FRACTION)])[0].verdict == "within noise"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_keep_their_order_and_are_never_lower(p: list[float]) -> None:
    adjusted = benjamini_hochberg(p)
    assert all(a <= b + 1e-12 <= 1 + 1e-9 for a, b in zip(p, adjusted, strict=True))
    assert np.all(np.diff(np.array(adjusted)[np.argsort(p, kind="stable")]) >= -1e-12)
