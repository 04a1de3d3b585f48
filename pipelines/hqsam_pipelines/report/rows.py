"""The numbers of the report: one `Row` per benchmark, prompt set and metric, ours beside the paper's.

All values in a `Row` are as people print them (`hqsam_metrics.base.Scale`): fractions times 100,
differences in points.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hqsam_metrics.base import Quantity, Scale, Value
from hqsam_metrics.stats import Difference, paired, stratified
from hqsam_metrics.verdicts import NOT_TESTED, Judged, judge
from hqsam_pipelines.report import comparable, paper
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.units import clusters_of, common_rows, quantity_values, rows_of

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Row:
    """One metric of one benchmark: a system against its baseline (HQ-SAM against SAM), ours and the paper's.

    Attributes:
        benchmark, prompt_set, metric, model: what is measured.
        hq_system: the system that the row is about: by default what HQ-SAM is in the benchmark's
            protocol.
        baseline: what it is compared with.
        scale: how values are shown, and which way is better.
        main: whether charts and the count of gains are about this metric of the benchmark.
        values: by system, as shown.
        delta: HQ-SAM minus SAM, as shown; None if one is undefined.
        interval: paired bootstrap of `delta` itself: for means over units, and for values that have
            matches.
        stand_in: for values that are no mean over units: paired bootstrap of a quantity of the
            instances.
        stand_in_of: that quantity.
        paper_sam, paper_hq: the paper's values on `paper_backbone`.
        n_scored, n_expected: units.
        comparable: how far ours are comparable with the paper's (`comparable`); "" without the paper's.
        judged: the verdict among the rows that answer the same question (`judged`).
    """

    benchmark: str
    prompt_set: str
    metric: str
    model: str
    hq_system: str
    baseline: str
    scale: Scale
    main: bool
    values: dict[str, float]
    delta: float | None
    interval: Difference | None
    stand_in: Difference | None
    stand_in_of: Quantity | None
    paper_sam: float | None
    paper_hq: float | None
    paper_backbone: str
    n_scored: int
    n_expected: int
    comparable: str = ""
    judged: Judged = NOT_TESTED

    @property
    def label(self) -> str:
        """The metric's name, with its unit and direction where they are not the usual ones."""
        return self.scale.label(self.metric)

    @property
    def gain(self) -> float:
        """The difference with the sign that makes positive better for HQ-SAM; 0 if one value is undefined."""
        return self.scale.gain(self.delta or 0.0)

    @property
    def sam(self) -> float | None:
        """The baseline's value: SAM's."""
        return self.values.get(self.baseline)

    @property
    def hq(self) -> float | None:
        """The system's value: HQ-SAM's."""
        return self.values.get(self.hq_system)

    @property
    def paper_delta(self) -> float | None:
        """The paper's difference in points."""
        return minus(self.paper_hq, self.paper_sam)


def judged(rows: Sequence[Row], headline: Sequence[Row] = ()) -> list[Row]:
    """Gives rows their verdicts: together, but for those that `headline` has judged already."""
    key = ("model", "benchmark", "prompt_set", "metric", "hq_system")
    known = {tuple(getattr(row, name) for name in key): row.judged for row in headline}
    places = [tuple(getattr(row, name) for name in key) for row in rows]
    rest = [row for row, place in zip(rows, places, strict=True) if place not in known]
    own = iter(judge([(row.interval, row.scale) for row in rest]))
    return [
        replace(row, judged=known[place] if place in known else next(own))
        for row, place in zip(rows, places, strict=True)
    ]


def minus(a: float | None, b: float | None) -> float | None:
    """A - b, None if either is."""
    return None if a is None or b is None else a - b


@functools.lru_cache(maxsize=4096)
def make_row(
    run: Run, model: str, benchmark: str, prompt_set: str, metric: str, system: str | None = None
) -> Row | None:
    """One row of a system (default: what HQ-SAM is here); None if no system has the metric.

    Several tables show the same one: it is computed once.
    """
    if benchmark == paper.HQ4_MEAN:
        return _mean_row(run, model, prompt_set, metric)
    results = {s.name: run.find(benchmark, model, prompt_set, s.name) for s in run.systems}
    shown = {s: None if r is None else r.shown(metric) for s, r in results.items()}
    values = {s: number for s, number in shown.items() if number is not None}
    if not values:
        return None
    hq, score = system or run.hq_system(benchmark), run.score(benchmark)
    value = score.value(metric)
    own = run.resampled(benchmark, model, prompt_set, hq).get(metric) if value.resampled else None
    counted = next(r for r in results.values() if r is not None)
    return _row(
        run,
        (benchmark, prompt_set, metric, model),
        value,
        values,
        hq,
        main=(metric,) == score.headline[-1:],
        interval=own or _interval(run, benchmark, model, prompt_set, hq, value.mean_of),
        stand_in=_interval(run, benchmark, model, prompt_set, hq, value.stand_in),
        counts=(counted.n_scored, counted.n_expected),
    )


def _row(
    run: Run,
    what: tuple[str, str, str, str],
    value: Value,
    values: dict[str, float],
    hq: str,
    *,
    main: bool,
    interval: Difference | None,
    stand_in: Difference | None,
    counts: tuple[int, int],
) -> Row:
    benchmark, prompt_set, metric, model = what
    backbone = paper.reference_backbone(run.backbone(model))
    baseline = run.system(hq).versus or hq
    names = paper.HQ4 if benchmark == paper.HQ4_MEAN else (benchmark,)
    ours = hq == run.hq_system(names[0])
    theirs = {
        system: paper.value(system, benchmark, prompt_set, metric, backbone) if ours else None
        for system in ("SAM", "HQ-SAM")
    }
    found = [run.find(name, model, prompt_set, hq) for name in names]
    results = [result for result in found if result is not None]
    return Row(
        *what,
        hq_system=hq,
        baseline=baseline,
        scale=value.scale,
        main=main,
        values=values,
        delta=minus(values.get(hq), values.get(baseline)) if hq != baseline else None,
        interval=interval,
        stand_in=stand_in,
        stand_in_of=value.stand_in,
        paper_sam=theirs["SAM"],
        paper_hq=theirs["HQ-SAM"],
        paper_backbone=backbone,
        n_scored=counts[0],
        n_expected=counts[1],
        comparable=comparable.words(run, model, backbone, results) if any(theirs.values()) else "",
    )


def _interval(
    run: Run, benchmark: str, model: str, prompt_set: str, hq: str, quantity: Quantity | None
) -> Difference | None:
    if quantity is None or run.system(hq).versus is None:
        return None
    return paired(*_differences(run, benchmark, model, prompt_set, hq, quantity))


def _differences(
    run: Run, benchmark: str, model: str, prompt_set: str, hq: str, quantity: Quantity
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """A system minus its baseline, of every instance, as shown, and its cluster."""
    frame, systems = run.units(benchmark, model), (run.system(hq).versus or hq, hq)
    # the same instances in the same order
    sam, head = common_rows([rows_of(frame, prompt_set, name) for name in systems])
    difference = quantity.scale.factor * (
        quantity_values(head, quantity) - quantity_values(sam, quantity)
    )
    return np.asarray(difference, np.float64), clusters_of(sam)


def _mean_row(run: Run, model: str, prompt_set: str, metric: str) -> Row | None:
    """The unweighted mean of the four sets; its interval resamples each set on its own."""
    parts = [make_row(run, model, name, prompt_set, metric) for name in paper.HQ4]
    rows = [part for part in parts if part is not None]
    if len(rows) < len(paper.HQ4) or len({row.scale for row in rows}) > 1:
        return None
    systems = [s.name for s in run.systems if all(s.name in row.values for row in rows)]
    hq, value = rows[0].hq_system, run.score(paper.HQ4[0]).value(metric)
    strata = value.mean_of and [
        _differences(run, name, model, prompt_set, hq, value.mean_of) for name in paper.HQ4
    ]
    return _row(
        run,
        (paper.HQ4_MEAN, prompt_set, metric, model),
        value,
        {s: sum(row.values[s] for row in rows) / len(rows) for s in systems},
        hq,
        main=rows[0].main,
        interval=stratified(strata or []),
        stand_in=None,
        counts=(sum(row.n_scored for row in rows), sum(row.n_expected for row in rows)),
    )


def spec_rows(run: Run, model: str, spec: paper.TableSpec) -> list[Row]:
    """The rows of one of the paper's tables; empty if none of its benchmarks was scored."""
    found = []
    for block in spec.blocks:
        for prompt_set in _prompt_sets(run, model, block):
            found += [
                make_row(run, model, block.benchmark, prompt_set, metric)
                for metric in block.metrics
            ]
    return [row for row in found if row is not None]


def _prompt_sets(run: Run, model: str, block: paper.Block) -> list[str]:
    if block.prompt_set is not None:
        return [block.prompt_set]
    return run.prompt_sets(block.benchmark, model)[:1]


def other_rows(run: Run, model: str) -> list[Row]:
    """Every metric of a benchmark or prompt set that none of the paper's tables shows."""
    shown = {
        (b.benchmark, p)
        for s in paper.TABLES
        for b in s.blocks
        for p in _prompt_sets(run, model, b)
    }
    pairs = [
        (b, p) for b in run.benchmarks for p in run.prompt_sets(b, model) if (b, p) not in shown
    ]
    rows = [
        make_row(run, model, benchmark, prompt_set, metric)
        for benchmark, prompt_set in pairs
        for metric in metric_names(run, model, benchmark, prompt_set)
    ]
    return [row for row in rows if row is not None]


def metric_names(run: Run, model: str, benchmark: str, prompt_set: str) -> list[str]:
    """Names of all defined metrics, in reading order."""
    results = [run.find(benchmark, model, prompt_set, s.name) for s in run.systems]
    return sorted(
        {name for r in results if r is not None for name in r.metrics},
        key=run.score(benchmark).place,
    )


def headline_rows(run: Run, model: str) -> list[Row]:
    """The overview: the headline metrics of every benchmark, the mean of the four HQ sets first."""
    means = run.score(paper.HQ4[0]).headline if paper.HQ4[0] in run.benchmarks else ()
    rows = [make_row(run, model, paper.HQ4_MEAN, "gt_box", metric) for metric in means]
    for benchmark in run.benchmarks:
        for prompt_set in paper.main_prompts(run.prompt_sets(benchmark, model)):
            headline = run.score(benchmark).headline
            rows += [make_row(run, model, benchmark, prompt_set, metric) for metric in headline]
    return [row for row in rows if row is not None]


def system_rows(run: Run, model: str) -> list[Row]:
    """The headline metrics of the systems beside SAM and HQ-SAM: a refiner's, other people's models."""
    places = [
        (b, p, s.name)
        for b in run.benchmarks
        for p in run.prompt_sets(b, model)
        for s in run.further(b)
    ]
    rows = [
        make_row(run, model, benchmark, prompt_set, metric, system)
        for benchmark, prompt_set, system in places
        if run.find(benchmark, model, prompt_set, system) is not None
        for metric in run.score(benchmark).headline
    ]
    return [row for row in rows if row is not None]
