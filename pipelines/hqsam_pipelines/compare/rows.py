"""The rows of one benchmark: what is compared, between which instances, under which protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hqsam_metrics.stats import Difference, stratified
from hqsam_pipelines.compare.revisions import NotAvailableError, Revision
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import Result, metric_place

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["better", "worse", "noise", "same", "untested", "not comparable"]

UNIT_METRICS = {"mIoU": "iou", "mBIoU": "biou", "J": "j", "F": "f", "J&F": "j&f"}
INSTANCE_ROWS = (("instance IoU", "iou"), ("instance boundary IoU", "biou"))
_INSTANCES = 24  # of a benchmark, at most, are listed
Strata = dict[tuple[str, str, str], dict[str, tuple[Any, Any]]]
"""Paired differences and clusters of the HQ sets, by (model, prompt set, "system metric") and benchmark."""


@dataclass(frozen=True)
class Change:
    """One compared number.

    Attributes:
        benchmark, model, prompt_set, system, metric: what.
        a, b: values times 100; None if that side has none.
        difference: b - a, points.
        interval: paired bootstrap, points; None if the quantity has none or a table could not be had.
        p_holm: corrected p-value, NaN if untested.
        verdict: ``same``: every instance is equal; ``untested``: no interval; ``not comparable``: other protocol.
        note: why there is no interval, or what differs.
        protocol: differing protocol keys with both values.
    """

    benchmark: str
    model: str
    prompt_set: str
    system: str
    metric: str
    a: float | None
    b: float | None
    difference: float | None = None
    interval: Difference | None = None
    p_holm: float = math.nan
    verdict: Verdict = "untested"
    note: str = ""
    protocol: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Instance:
    """An instance whose HQ-SAM mask changed: its score (times 100) at both revisions.

    The score is boundary IoU, J&F where a benchmark has no boundary IoU (`quantity`).
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


class BenchmarkRows:
    """The rows of one benchmark and model."""

    def __init__(self, a: Revision, b: Revision, benchmark: str, model: str) -> None:
        self.benchmark, self.model = benchmark, model
        self._a, self._b = a, b
        self.notes: list[str] = []
        self.lacking: list[NotAvailableError] = []
        self._output = hq_system(b, benchmark)
        self._sides = [
            {r.row: r for r in side.results if (r.benchmark, r.model) == (benchmark, model)} for side in (a, b)
        ]
        self._tables = [self._table(side) for side, own in zip((a, b), self._sides, strict=True) if own]

    def _table(self, side: Revision) -> pd.DataFrame | None:
        try:
            return side.units(self.benchmark, self.model)
        except NotAvailableError as error:
            self.lacking.append(error)
            return None

    def changes(self, strata: Strata) -> list[Change]:
        """The rows; differences per instance of the HQ sets are left in `strata` for their mean."""
        found: list[Change] = []
        for row in dict.fromkeys((*self._sides[0], *self._sides[1])):
            a, b = (side.get(row) for side in self._sides)
            if a is None or b is None:
                continue
            if a.protocol_hash != b.protocol_hash:
                found += _refused(a, b)
                continue
            found += [self._change(a, b, metric, strata) for metric in _names(a, b)]
            if any(metric.startswith("AP") for metric in _names(a, b)):
                rows = [self._instances(a, name, column) for name, column in INSTANCE_ROWS]
                found += [change for change in rows if change is not None]
        return found

    def _change(self, a: Result, b: Result, metric: str, strata: Strata) -> Change:
        left, right = (None if m not in r.metrics else 100 * r.metrics[m] for r, m in ((a, metric), (b, metric)))
        difference = None if left is None or right is None else right - left
        change = Change(*a.row, metric, left, right, difference)
        column = UNIT_METRICS.get(metric)
        if column is None:
            return change
        paired = self._paired(a, column)
        if paired is None:
            return change
        if self.benchmark in paper.HQ4:
            strata.setdefault((self.model, a.prompt_set, f"{a.system} {metric}"), {})[self.benchmark] = paired
        return replace(change, interval=stratified([paired]))

    def with_ap_intervals(self, changes: Sequence[Change]) -> list[Change]:
        """The rows, those of AP over all sizes and thresholds with intervals of their own."""
        from hqsam_metrics.ap.resample import KINDS, ap_differences
        from hqsam_pipelines.compare.ap import matched_at

        section = self._b.params.get("benchmarks", {}).get(self.benchmark, {}).get("score", {})
        rows = {(c.prompt_set, c.system) for c in changes if c.metric == "AP" and c.verdict != "not comparable"}
        found: dict[tuple[str, str, str], Difference] = {}
        for prompt_set, system in sorted(rows) if section.get("metric") in KINDS else ():
            try:
                a, b = (matched_at(side, self.benchmark, self.model, prompt_set, system) for side in (self._a, self._b))
                found |= {(prompt_set, system, name): d for name, d in ap_differences(a, b).items()}
            except NotAvailableError as error:
                self.lacking.append(error)
            except ValueError as error:
                self.notes.append(f"{self.benchmark}: no bootstrap of AP: {error}")
        return [replace(c, interval=found.get((c.prompt_set, c.system, c.metric), c.interval)) for c in changes]

    def _instances(self, result: Result, name: str, column: str) -> Change | None:
        frames = self._frames(result)
        if frames is None:
            return None
        a, b = (100 * unit_values(frame, column) for frame in frames)
        interval = stratified([(np.asarray(b - a, np.float64), frames[0]["cluster"].to_numpy())])
        left, right = float(a.mean()), float(b.mean())
        return Change(*result.row, name, left, right, right - left, interval)

    def _paired(self, result: Result, column: str) -> tuple[Any, Any] | None:
        frames = self._frames(result)
        if frames is None:
            return None
        difference = 100 * (unit_values(frames[1], column) - unit_values(frames[0], column))
        return np.asarray(difference, np.float64), frames[0]["cluster"].to_numpy()

    def _frames(self, result: Result) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Both sides' rows of one system, the same instances in the same order; None if a table is missing."""
        if len(self._tables) < 2 or any(t is None for t in self._tables):
            return None
        chosen = []
        for table in self._tables:
            assert table is not None
            mine = (table["prompt_set"] == result.prompt_set) & (table["system"] == result.system)
            chosen.append(table[mine].set_index(["key", "unit"]).sort_index())
        both = chosen[0].index.intersection(chosen[1].index)
        lost = len(chosen[0]) + len(chosen[1]) - 2 * len(both)
        if lost:
            self.notes.append(f"{self.benchmark}: {lost} instances are in one revision only: left out of the pairs")
        return chosen[0].loc[both], chosen[1].loc[both]

    def instances(self) -> list[Instance]:
        """Instances of HQ-SAM (the benchmark's output by B's parameters) whose score changed."""
        found = []
        for row in [r for r in self._sides[0] if r in self._sides[1] and r[3] == self._output]:
            a, b = self._sides[0][row], self._sides[1][row]
            frames = self._frames(a) if a.protocol_hash == b.protocol_hash else None
            if frames is None:
                continue
            quantity = "J&F" if frames[0]["biou"].isna().all() else "boundary IoU"
            left, right = (100 * f["biou"].fillna((f["j"] + f["f"]) / 2) for f in frames)
            change = (right - left).abs()
            largest = change[change > 1e-9].sort_values(ascending=False, kind="stable").index[:_INSTANCES]
            for place in largest:
                key, unit = place
                cluster = str(frames[0].at[place, "cluster"])
                found.append(
                    Instance(*row, str(key), cluster, str(unit), _at(left, place), _at(right, place), quantity)
                )
        return found


def _at(values: pd.Series[float], place: Any) -> float:
    return float(np.asarray(values.loc[[place]], np.float64)[0])


def unit_values(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """One per-instance quantity; ``j&f`` is the mean of both."""
    return (frame["j"] + frame["f"]) / 2 if column == "j&f" else frame[column]


def _names(a: Result, b: Result) -> list[str]:
    return sorted({*a.metrics, *b.metrics}, key=metric_place)


def _refused(a: Result, b: Result) -> list[Change]:
    """Rows of two different protocols: both values, no difference."""
    keys = differing(a.protocol, b.protocol)
    note = "other protocol: " + "; ".join(f"{key} {left} → {right}" for key, left, right in keys)
    return [
        Change(
            *a.row,
            metric,
            None if metric not in a.metrics else 100 * a.metrics[metric],
            None if metric not in b.metrics else 100 * b.metrics[metric],
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
    return tuple((key, str(left.get(key, "–")), str(right.get(key, "–"))) for key in keys)


_NONE = object()


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [item for key, inner in value.items() for item in _flat(inner, f"{prefix}{key}.")]
    return [(prefix[:-1], value)]
