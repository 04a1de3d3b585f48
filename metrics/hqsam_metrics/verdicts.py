"""Better, worse, or noise: the one place that turns differences into verdicts.

Terminal, page, README, JSON and flow show what `judge` says and decide nothing themselves. One call
judges one family: all rows that answer one question, such as the headline rows of HQ-SAM at two
commits. Rows that cannot move (every instance is equal, as of a frozen SAM) and rows with too few
images are no tests and stay outside. The p-values of the others are adjusted together by Benjamini
and Hochberg (J. R. Statist. Soc. B 57, 1995): if nothing changed, one row in the family is called
better or worse in at most 5 % of all comparisons; if something did, at most 5 % of the rows that
are called so are expected to be false. docs/statistics.md has the measured rates, and why not
Holm's method.

    rows = [(difference, scale), ...]            # hqsam_metrics.stats, hqsam_metrics.base.Scale
    for row in judge(rows): row.verdict, row.p, row.difference, row.why
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np

from hqsam_metrics.base import Scale
from hqsam_metrics.stats import Difference

Verdict = Literal[
    "better",
    "worse",
    "within noise",
    "too few to tell",
    "cannot move",
    "not tested",
    "equal up to rounding",
]

ALPHA = 0.05


@dataclass(frozen=True)
class Judged:
    """A difference with its verdict.

    Attributes:
        difference: what was judged; None: there is no interval.
        verdict: ``better`` and ``worse``: beyond noise; ``within noise``; ``too few to tell``: too
            few images or videos (that differ) for an interval; ``cannot move``: every instance is
            equal; ``not tested``: there is no interval; ``equal up to rounding``: the same inputs on
            another machine, which rounds otherwise.
        p: the p-value, adjusted for the family; NaN where nothing was tested.
        why: the reason of ``too few to tell`` and ``equal up to rounding``.
    """

    difference: Difference | None
    verdict: Verdict
    p: float = nan
    why: str = ""

    @property
    def tone(self) -> Literal["up", "down", "flat"]:
        """Returns the colour that the row may have: only a verdict of better or worse has one."""
        tones: dict[str, Literal["up", "down"]] = {"better": "up", "worse": "down"}
        return tones.get(self.verdict, "flat")


NOT_TESTED = Judged(None, "not tested")


def judge(
    rows: Sequence[tuple[Difference | None, Scale]], *, other_machine: str = ""
) -> list[Judged]:
    """Judges the rows of one family, in their order.

    Args:
        rows: the difference of each row (None: it has no interval), and the scale that says which
            way is better.
        other_machine: how the machines of the two sides differ, where nothing else does: then no
            row is better or worse.
    """
    if other_machine:
        return [_rounded(d, other_machine) for d, _ in rows]
    adjusted = benjamini_hochberg([nan if d is None else d.p for d, _ in rows])
    return [_judged(d, scale, p) for (d, scale), p in zip(rows, adjusted, strict=True)]


def _rounded(difference: Difference | None, machine: str) -> Judged:
    if difference is not None and not difference.differing:
        return Judged(difference, "cannot move")
    return Judged(difference, "equal up to rounding", why=f"another machine: {machine}")


def _judged(difference: Difference | None, scale: Scale, p: float) -> Judged:
    if difference is None:
        return NOT_TESTED
    if not difference.differing:
        return Judged(difference, "cannot move")
    if difference.too_few:
        return Judged(difference, "too few to tell", why=difference.too_few)
    if p > ALPHA:
        return Judged(difference, "within noise", p)
    return Judged(difference, "better" if scale.gain(difference.mean) > 0 else "worse", p)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted by Benjamini and Hochberg's method; NaN entries stay NaN and are no tests."""
    p = np.asarray(p_values, np.float64)
    tests = np.flatnonzero(~np.isnan(p))
    falling = tests[np.argsort(-p[tests], kind="stable")]
    factors = len(tests) / np.arange(len(tests), 0, -1)
    adjusted = p.copy()
    adjusted[falling] = np.minimum(1.0, np.minimum.accumulate(p[falling] * factors))
    return [float(value) for value in adjusted]
