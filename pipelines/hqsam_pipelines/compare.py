"""Compares the results of two revisions: how much better or worse, and is it noise?

For every benchmark, model, prompt set, system and metric: both values, their difference, a paired bootstrap interval
over the instances that both revisions scored (clustered by image or video), a p-value corrected by Holm's method over
the benchmarks, and a verdict. AP is no mean over instances: it is compared as a point, and the mean IoU and boundary
IoU of the same instances are compared beside it, with intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hqsam_pipelines import paper
from hqsam_pipelines.compare_revisions import WORKSPACE, NotAvailableError, Repository, Revision, unavailable
from hqsam_pipelines.report_data import Result, metric_place
from hqsam_pipelines.report_stats import Difference, holm, stratified

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["better", "worse", "noise", "same", "untested", "not comparable", "missing"]
Progress = Callable[[int, int, str], None]

ALPHA = 0.05
UNIT_METRICS = {"mIoU": "iou", "mBIoU": "biou", "J": "j", "F": "f", "J&F": "j&f"}
INSTANCE_ROWS = (("instance IoU", "iou"), ("instance boundary IoU", "biou"))
METHOD = (
    "B minus A in points (values times 100). Intervals: 95 % percentile intervals of a paired bootstrap over the "
    "instances that both revisions scored, resampling whole images (videos for video sets). p-values: Holm-corrected "
    "over benchmarks and prompt sets for each model, system and quantity. AP is not a mean over instances: it is "
    "compared as a point, without a verdict; the rows 'instance IoU' and 'instance boundary IoU' test the masks "
    "behind it."
)


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
    """An instance whose HQ-SAM mask changed, points of boundary IoU (J&F for DAVIS)."""

    benchmark: str
    model: str
    prompt_set: str
    system: str
    key: str
    unit: str
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """All changes between two revisions.

    Attributes:
        a, b: the revisions.
        changes: the rows.
        missing: benchmarks (and prompt sets, systems) that only one side has, as sentences.
        notes: what could not be read, once each.
        commits: short log from A to B.
        params: differing keys of params.yaml with both values.
        outputs: DVC outputs whose content differs.
        instances: the most changed instances, largest change first.
    """

    a: Revision
    b: Revision
    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    commits: tuple[str, ...]
    params: tuple[tuple[str, str, str], ...]
    outputs: tuple[str, ...]
    instances: tuple[Instance, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Rows that became significantly worse."""
        return tuple(c for c in self.changes if c.verdict == "worse")

    @property
    def tested(self) -> int:
        """Rows with a verdict."""
        return sum(c.verdict in ("better", "worse", "noise", "same") for c in self.changes)


def compare(
    root: Path, rev_a: str, rev_b: str = WORKSPACE, *, ap_bootstrap: bool = False, report: Progress | None = None
) -> Comparison:
    """Compares two revisions of the repository at `root`.

    Args:
        root: folder with dvc.yaml, inside a git repository.
        rev_a: a git revision (or ``workspace``).
        rev_b: the same; what is judged.
        ap_bootstrap: give AP intervals of its own (COCO, LVIS, UVO), from the predictions of both revisions.
        report: called with (done, total, what).

    Raises:
        UserError: no git repository, unknown revision, no metrics at a revision, damaged files.
    """
    repository = Repository(root)
    a, b = repository.revision(rev_a), repository.revision(rev_b)
    found: list[Change] = []
    notes: list[str] = []
    lacking: list[NotAvailableError] = []
    instances: list[Instance] = []
    strata: dict[tuple[str, str, str], dict[str, tuple[Any, Any]]] = {}
    pairs = _pairs(a, b)
    for place, (benchmark, model) in enumerate(pairs):
        if report is not None:
            report(place, len(pairs), benchmark)
        one = _Benchmark(a, b, benchmark, model)
        rows = one.changes(strata)
        found += one.with_ap_intervals(rows) if ap_bootstrap else rows
        instances += one.instances()
        notes += one.notes
        lacking += one.lacking
    found = _hq4_rows(found, strata) + found
    return Comparison(
        a=a,
        b=b,
        changes=tuple(_judged(found)),
        missing=tuple(_missing(a, b)),
        notes=(*_unavailable(lacking), *dict.fromkeys(notes)),
        commits=tuple(repository.commits_between(a.sha, b.sha)),
        params=differing(a.params, b.params),
        outputs=tuple(sorted(p for p in {*a.outputs, *b.outputs} if a.outputs.get(p) != b.outputs.get(p))),
        instances=tuple(sorted(instances, key=lambda i: (-abs(i.b - i.a), i.benchmark, i.key, i.unit))[:24]),
    )


def _pairs(a: Revision, b: Revision) -> list[tuple[str, str]]:
    """(benchmark, model) of both sides, in the order of B's params.yaml."""
    order = {name: place for place, name in enumerate(b.params.get("benchmarks", {}))}
    found = {(r.benchmark, r.model) for side in (a, b) for r in side.results}
    return sorted(found, key=lambda p: (order.get(p[0], len(order)), p))


class _Benchmark:
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

    def changes(self, strata: dict[tuple[str, str, str], dict[str, tuple[Any, Any]]]) -> list[Change]:
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

    def _change(
        self, a: Result, b: Result, metric: str, strata: dict[tuple[str, str, str], dict[str, tuple[Any, Any]]]
    ) -> Change:
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
        from hqsam_pipelines.compare_ap import KINDS, ap_differences, matched

        section = self._b.params.get("benchmarks", {}).get(self.benchmark, {}).get("score", {})
        rows = {(c.prompt_set, c.system) for c in changes if c.metric == "AP" and c.verdict != "not comparable"}
        found: dict[tuple[str, str, str], Difference] = {}
        for prompt_set, system in sorted(rows) if section.get("metric") in KINDS else ():
            try:
                a, b = (matched(side, self.benchmark, self.model, prompt_set, system) for side in (self._a, self._b))
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
            left, right = (100 * f["biou"].fillna((f["j"] + f["f"]) / 2) for f in frames)
            changed = (right - left).abs() > 1e-9
            for key, unit in left.index[changed]:
                values = float(left.loc[(key, unit)]), float(right.loc[(key, unit)])
                found.append(Instance(*row, str(key), str(unit), *values))
        return sorted(found, key=lambda i: (-abs(i.b - i.a), i.key, i.unit))[:24]


def hq_system(revision: Revision, benchmark: str) -> str:
    """Which system is HQ-SAM in a benchmark's protocol, by a revision's params.yaml."""
    name = paper.HQ4[0] if benchmark == paper.HQ4_MEAN else benchmark
    section = revision.params.get("benchmarks", {}).get(name, {})
    return str(section.get("score", {}).get("output", "hq_token"))


def _unavailable(errors: Sequence[NotAvailableError]) -> list[str]:
    """One sentence for each revision and reason."""
    groups: dict[tuple[str, str], list[NotAvailableError]] = {}
    for error in errors:
        groups.setdefault((error.where, error.why), []).append(error)
    return [unavailable(group) for group in groups.values()]


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


def _hq4_rows(
    changes: Iterable[Change], strata: Mapping[tuple[str, str, str], Mapping[str, tuple[Any, Any]]]
) -> list[Change]:
    """The mean over the four HQ sets, for each system and metric that all four have."""
    table = {(c.benchmark, c.model, c.prompt_set, c.system, c.metric): c for c in changes}
    rows = []
    for (model, prompt_set, name), parts in strata.items():
        system, metric = name.split(" ")
        found = [table.get((b, model, prompt_set, system, metric)) for b in paper.HQ4]
        known = [c for c in found if c is not None and c.a is not None and c.b is not None]
        if len(known) == len(paper.HQ4) == len(parts):
            a, b = (sum(getattr(c, side) for c in known) / len(known) for side in ("a", "b"))
            interval = stratified([parts[name] for name in paper.HQ4])
            rows.append(Change(paper.HQ4_MEAN, model, prompt_set, system, metric, a, b, b - a, interval))
    return rows


def _judged(changes: Sequence[Change]) -> list[Change]:
    """Adds corrected p-values and verdicts. The mean of the HQ sets is a family of its own: it repeats their data."""
    families: dict[tuple[str, str, str, bool], list[int]] = {}
    for place, change in enumerate(changes):
        if change.interval is not None:
            column = UNIT_METRICS.get(change.metric) or dict(INSTANCE_ROWS).get(change.metric, change.metric)
            family = (change.model, change.system, column, change.benchmark == paper.HQ4_MEAN)
            families.setdefault(family, []).append(place)
    judged = list(changes)
    for places in families.values():
        corrected = holm([_p(changes[place]) for place in places])
        for place, p in zip(places, corrected, strict=True):
            judged[place] = _with_verdict(changes[place], p)
    return judged


def _p(change: Change) -> float:
    return math.nan if change.interval is None else change.interval.p


def _with_verdict(change: Change, p: float) -> Change:
    assert change.interval is not None
    difference = change.difference
    if difference == 0 and change.interval.mean == change.interval.low == change.interval.high == 0:
        return replace(change, p_holm=p, verdict="same")
    if math.isnan(p):
        return replace(change, note="fewer than two images or videos")
    if p >= ALPHA:
        return replace(change, p_holm=p, verdict="noise")
    return replace(change, p_holm=p, verdict="better" if change.interval.mean > 0 else "worse")


def _missing(a: Revision, b: Revision) -> list[str]:
    """What only one side has: whole benchmarks first, then single prompt sets and systems."""
    found = []
    rows = [{r.row for r in side.results} for side in (a, b)]
    for own, other, side, opposite in ((rows[0], rows[1], a, b), (rows[1], rows[0], b, a)):
        sets, other_sets = ({row[:2] for row in part} for part in (own, other))
        for benchmark, model in sorted(sets - other_sets):
            found.append(f"{benchmark} ({model}) is missing at {opposite.label}, it is only at {side.label}")
        for row in sorted(r for r in own - other if r[:2] in other_sets):
            found.append(f"{' '.join(row)} is missing at {opposite.label}, it is only at {side.label}")
    return found


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
