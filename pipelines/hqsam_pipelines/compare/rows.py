"""The rows of one benchmark: what is compared, between which instances, under which protocol."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hqsam_base.safe_text import shown
from hqsam_metrics import verdicts
from hqsam_metrics.base import Quantity, Scale
from hqsam_metrics.seeds import SeedStratum, two_level
from hqsam_metrics.stats import Difference
from hqsam_pipelines.compare.revisions import NotAvailableError, Revision
from hqsam_pipelines.compare.seeds import FurtherSeeds
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import Result
from hqsam_pipelines.report.units import clusters_of, common_rows, quantity_values, rows_of

if TYPE_CHECKING:
    import pandas as pd

Verdict = verdicts.Verdict | Literal["not comparable", "only in A", "only in B"]

LONE = ("only in A", "only in B")
"""Verdicts of rows that the other revision lacks."""

_INSTANCES = 24  # of a benchmark, at most, are listed
Strata = dict[tuple[str, str, str], dict[str, SeedStratum]]
"""Values of both sides and clusters of the HQ sets, by (model, prompt set, "system metric") and benchmark."""


@dataclass(frozen=True)
class Change:
    """One compared number.

    Attributes:
        benchmark, model, prompt_set, system, metric: what.
        scale: how its values are shown, and which way is better.
        headline: whether it is one of the rows that answer the question, which are judged together.
        main: whether it belongs into the short table even without a test.
        a, b: values as shown, means over the seeds where there are several; None if that side has
            none.
        difference: b - a.
        interval: paired bootstrap of the difference; None if the quantity has none or a table is
            unavailable.
        p_family: p-value, adjusted for the rows that are judged together; NaN if untested.
        verdict: see `hqsam_metrics.verdicts`; ``not comparable``: other protocol; ``only in A``,
            ``only in B``: the other revision has no such row.
        note: why there is no verdict, or what differs.
        protocol: differing protocol keys with both values.
    """

    benchmark: str
    model: str
    prompt_set: str
    system: str
    metric: str
    scale: Scale
    headline: bool
    main: bool
    a: float | None
    b: float | None
    difference: float | None = None
    interval: Difference | None = None
    p_family: float = math.nan
    verdict: Verdict = "not tested"
    note: str = ""
    protocol: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Instance:
    """An instance whose HQ-SAM mask changed: its score, as shown, at both revisions.

    The score is the quantity that the benchmark's metric pictures (`quantity`); `gain` is positive
    where B is better.
    """

    benchmark: str
    model: str
    prompt_set: str
    system: str
    key: str
    cluster: str
    unit: str
    a: float
    b: float
    quantity: str
    gain: float


class BenchmarkRows:
    """The rows of one benchmark and model.

    Attributes:
        seeds: how many trainings of A and of B are compared.
    """

    def __init__(self, a: Revision, b: Revision, benchmark: str, model: str) -> None:
        self.benchmark, self.model = benchmark, model
        self._a, self._b = a, b
        self.notes: list[str] = []
        self.lacking: list[NotAvailableError] = []
        self._output = hq_system(b, benchmark)
        self._sides = [
            {r.row: r for r in side.results if (r.benchmark, r.model) == (benchmark, model)}
            for side in (a, b)
        ]
        self._tables: list[list[pd.DataFrame]] = []
        self._frames = functools.lru_cache(maxsize=1)(self._read_frames)  # of several metrics
        self._further: list[FurtherSeeds | None] = []
        for side in (a, b):
            # the per-instance tables of all seeds, the first seed first
            tables: list[pd.DataFrame] = []
            further = None
            try:
                tables.append(side.units(self.benchmark, self.model))
                further = FurtherSeeds(side, self.benchmark, self.model)
                self.notes += [further.note] if further.note else []
                tables += further.units()
            except NotAvailableError as error:
                self.lacking.append(error)
                further = None
            self._tables.append(tables if further is not None else tables[:1])
            self._further.append(further)
        left, right = (1 + len(more.results) if more else 1 for more in self._further)
        self.seeds = (left, right)

    def changes(self, strata: Strata) -> list[Change]:
        """The rows; differences per instance of the HQ sets are left in `strata` for their mean."""
        found: list[Change] = []
        for row in dict.fromkeys((*self._sides[0], *self._sides[1])):
            a, b = (side.get(row) for side in self._sides)
            if a is None or b is None:
                found += self._lone(a, b)
                continue
            if a.protocol_hash != b.protocol_hash:
                found += _refused(a, b)
                continue
            found += [self._change(a, b, metric, strata) for metric in _names(a, b)]
            stand_ins = [b.score.value(metric).stand_in for metric in _names(a, b)]
            for quantity in dict.fromkeys(stand_ins):
                paired = None if quantity is None else self._paired(a, quantity)
                if quantity is None or paired is None:
                    continue
                left, right = (float(side.mean()) for side in paired[:2])
                found.append(
                    Change(
                        *a.row,
                        quantity.title,
                        quantity.scale,
                        False,
                        False,
                        left,
                        right,
                        right - left,
                        two_level([paired]),
                    )
                )
        main = paper.main_prompts(
            dict.fromkeys(prompt_set for _, _, prompt_set, _ in self._sides[1] or self._sides[0])
        )
        return [c if c.prompt_set in main else replace(c, headline=False) for c in found]

    def _lone(self, a: Result | None, b: Result | None) -> list[Change]:
        """The headline values of HQ-SAM that only one revision has; the answer must not pass over them."""
        own, side = (b, self._b) if a is None else (a, self._a)
        verdict: Verdict = "only in B" if a is None else "only in A"
        assert own is not None
        if own.system != hq_system(side, self.benchmark):
            return []
        bare = [_bare(own, own, name) for name in _names(own, own) if name in own.score.headline]
        return [
            replace(
                change,
                a=None if a is None else a.shown(change.metric),
                b=None if b is None else b.shown(change.metric),
                verdict=verdict,
            )
            for change in bare
        ]

    def _change(self, a: Result, b: Result, metric: str, strata: Strata) -> Change:
        means: list[float | None] = []
        for result, further in zip((a, b), self._further, strict=True):
            # of each seed; of the first alone where another seed lacks the row
            seeds = [result, *(further.of(result) if further is not None else ())]
            values = [seed.shown(metric) for seed in seeds]
            known = [value for value in values if value is not None]
            means.append(sum(known) / len(known) if len(known) == len(values) else None)
        left, right = means
        difference = None if left is None or right is None else right - left
        change = replace(_bare(a, b, metric), a=left, b=right, difference=difference)
        quantity = b.score.value(metric).mean_of
        paired = None if quantity is None else self._paired(a, quantity)
        if paired is None:
            return change
        if self.benchmark in paper.HQ4:
            strata.setdefault((self.model, a.prompt_set, f"{a.system} {metric}"), {})[
                self.benchmark
            ] = paired
        return replace(change, interval=two_level([paired]))

    def resampled(self, changes: Sequence[Change]) -> list[Change]:
        """The rows, those whose values have matches at both revisions with intervals of their own."""
        from hqsam_metrics.ap.resample import differences

        found: dict[tuple[str, str, str], Difference] = {}
        for row in dict.fromkeys((*self._sides[0], *self._sides[1])):
            a, b = (side.get(row) for side in self._sides)
            if a is None or b is None or a.protocol_hash != b.protocol_hash:
                continue
            names = [name for name in _names(a, b) if b.score.value(name).resampled]
            if not names or "trials" in b.protocol:  # their mean has no matches of its own
                continue
            try:
                sides = [
                    [side.matches(*row), *(more.matches(*row[2:]) if more and more.of(own) else [])]
                    for side, more, own in zip(
                        (self._a, self._b), self._further, (a, b), strict=True
                    )
                ]
                new = differences(sides[0], sides[1], names)
                found |= {(*row[2:], name): difference for name, difference in new.items()}
            except NotAvailableError as error:
                self.lacking.append(error)
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                self.notes.append(
                    f"{self.benchmark}: no interval of AP: {type(error).__name__}: {error}"
                )
        return [
            replace(c, interval=found.get((c.prompt_set, c.system, c.metric), c.interval))
            for c in changes
        ]

    def _paired(self, result: Result, quantity: Quantity) -> SeedStratum | None:
        frames = self._frames(result.row)
        if frames is None:
            return None
        a, b = (
            np.stack([quantity.scale.factor * quantity_values(f, quantity) for f in side])
            for side in frames
        )
        return a, b, clusters_of(frames[0][0])

    def _read_frames(
        self, row: tuple[str, str, str, str]
    ) -> tuple[list[pd.DataFrame], list[pd.DataFrame]] | None:
        """The rows of one system for each seed of either side, the same instances in the same order; None if a table is missing."""
        if not all(self._tables):
            return None
        chosen: list[list[pd.DataFrame]] = []
        for tables, own, further in zip(self._tables, self._sides, self._further, strict=True):
            alone = further is None or not further.of(own[row])
            chosen.append(
                [rows_of(table, row[2], row[3]) for table in tables[: 1 if alone else None]]
            )
        seeds = len(chosen[0])
        common = common_rows([*chosen[0], *chosen[1]])
        lost = len(chosen[0][0]) + len(chosen[1][0]) - 2 * len(common[0])
        if lost:
            self.notes.append(
                f"{self.benchmark}: {lost} instances are in one revision only: left out of the "
                f"pairs"
            )
        return common[:seeds], common[seeds:]

    def instances(self) -> list[Instance]:
        """Instances of HQ-SAM (the benchmark's output by B's parameters) whose score changed."""
        found = []
        for row in [r for r in self._sides[0] if r in self._sides[1] and r[3] == self._output]:
            a, b = self._sides[0][row], self._sides[1][row]
            frames = self._frames(row) if a.protocol_hash == b.protocol_hash else None
            quantity = b.score.pictured
            if frames is None or quantity is None:
                continue
            scale = quantity.scale
            left, right = (scale.factor * quantity_values(side[0], quantity) for side in frames)
            change = np.nan_to_num(np.abs(right - left))
            # The most changed first, those that changed equally by image and unit.
            largest = np.argsort(-change, kind="stable")[:_INSTANCES]
            for place in largest[change[largest] > 1e-9]:
                names = frames[0][0].iloc[place]
                key, cluster, unit = (str(names[name]) for name in ("key", "cluster", "unit"))
                shown = float(left[place]), float(right[place])
                gain = scale.gain(shown[1] - shown[0])
                found.append(Instance(*row, key, cluster, unit, *shown, quantity.title, gain))
        return found


def _bare(a: Result, b: Result, metric: str) -> Change:
    """The row of a metric without numbers."""
    value = b.score.value(metric)
    headline = metric in b.score.headline
    main = headline or value.mean_of is not None
    return Change(*a.row, metric, value.scale, headline, main, None, None)


def _names(a: Result, b: Result) -> list[str]:
    return sorted({*a.metrics, *b.metrics}, key=b.score.place)


def _refused(a: Result, b: Result) -> list[Change]:
    """Rows of two different protocols: both values, no difference."""
    keys = differing(a.protocol, b.protocol)
    note = "other protocol: " + "; ".join(f"{key} {left} → {right}" for key, left, right in keys)
    return [
        replace(
            _bare(a, b, metric),
            a=a.shown(metric),
            b=b.shown(metric),
            verdict="not comparable",
            note=note,
            protocol=keys,
        )
        for metric in _names(a, b)
    ]


def hq_system(revision: Revision, benchmark: str) -> str:
    """Which system is HQ-SAM in a benchmark's protocol, by a revision's params.yaml."""
    name = paper.HQ4[0] if benchmark == paper.HQ4_MEAN else benchmark
    section = revision.params.get("benchmarks", {}).get(name, {})
    return str(section.get("score", {}).get("output", "hq_token"))


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """Keys (dotted) whose values differ, with both values as text; ``–`` where a side has none."""
    left, right = dict(_flat(a)), dict(_flat(b))
    keys = sorted(key for key in {*left, *right} if left.get(key, _NONE) != right.get(key, _NONE))
    return tuple((key, shown(left.get(key, "–")), shown(right.get(key, "–"))) for key in keys)


_NONE = object()


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [item for key, inner in value.items() for item in _flat(inner, f"{prefix}{key}.")]
    return [(prefix[:-1], value)]
