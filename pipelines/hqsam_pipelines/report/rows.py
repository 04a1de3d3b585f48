"""The numbers of the report: one `Row` per benchmark, prompt set and metric, ours beside the paper's.

All values in a `Row` are as people print them: AP, IoU, J and F times 100, differences in points.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import SAM, SYSTEMS, Run, metric_place
from hqsam_pipelines.report.stats import Difference, paired, stratified

if TYPE_CHECKING:
    import pandas as pd

# Which per-instance column a metric is the mean of; for the others the interval is that of a stand-in (below).
UNIT_COLUMN = {"mIoU": "iou", "mBIoU": "biou", "J": "j", "F": "f", "J&F": "j&f"}
COLUMN_TITLES = {"iou": "instance IoU", "biou": "instance boundary IoU", "j": "J", "f": "F", "j&f": "J&F"}

HEADLINE = ("mIoU", "mBIoU", "AP", "AP_B", "J&F")
"""The metrics of the overview; a benchmark shows those it has."""


@dataclass(frozen=True)
class Row:
    """One metric of one benchmark: SAM against HQ-SAM, ours and the paper's.

    Attributes:
        benchmark, prompt_set, metric, model: what is measured.
        hq_system: which system is HQ-SAM here.
        values: by system, times 100.
        delta: HQ-SAM minus SAM, points; None if one is undefined.
        interval: paired bootstrap of `delta` itself: for means over units, and for AP over all sizes and thresholds.
        stand_in: for AP types: paired bootstrap of the mean per-instance (boundary) IoU; AP itself is no such mean.
        stand_in_of: name of that quantity.
        paper_sam, paper_hq: the paper's values on `paper_backbone`.
        n_scored, n_expected: units.
    """

    benchmark: str
    prompt_set: str
    metric: str
    model: str
    hq_system: str
    values: dict[str, float]
    delta: float | None
    interval: Difference | None
    stand_in: Difference | None
    stand_in_of: str
    paper_sam: float | None
    paper_hq: float | None
    paper_backbone: str
    n_scored: int
    n_expected: int

    @property
    def sam(self) -> float | None:
        """SAM's value."""
        return self.values.get(SAM)

    @property
    def hq(self) -> float | None:
        """HQ-SAM's value."""
        return self.values.get(self.hq_system)

    @property
    def paper_delta(self) -> float | None:
        """The paper's difference in points."""
        return minus(self.paper_hq, self.paper_sam)


def minus(a: float | None, b: float | None) -> float | None:
    """A - b, None if either is."""
    return None if a is None or b is None else a - b


def stand_in_column(metric: str) -> str | None:
    """The per-instance column that tells whether an AP-type metric moved beyond noise."""
    if not metric.startswith("AP"):
        return None
    return "biou" if metric.startswith("AP_B") else "iou"


def unit_values(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """One per-instance quantity; ``j&f`` is the mean of both."""
    if column == "j&f":
        return (frame["j"] + frame["f"]) / 2
    return frame[column]


@functools.lru_cache(maxsize=4096)
def make_row(run: Run, model: str, benchmark: str, prompt_set: str, metric: str) -> Row | None:
    """One row; None if no system has the metric. Several tables show the same one: it is computed once."""
    if benchmark == paper.HQ4_MEAN:
        return _mean_row(run, model, prompt_set, metric)
    results = {s: run.find(benchmark, model, prompt_set, s) for s in SYSTEMS}
    values = {s: 100 * r.metrics[metric] for s, r in results.items() if r is not None and metric in r.metrics}
    if not values:
        return None
    hq = run.hq_system(benchmark)
    column = UNIT_COLUMN.get(metric)
    own = run.ap_differences(benchmark, model, prompt_set).get(metric) if metric.startswith("AP") else None
    other = stand_in_column(metric)
    counted = next(r for r in results.values() if r is not None)
    return _row(
        run,
        (benchmark, prompt_set, metric, model),
        values,
        hq,
        interval=own or _interval(run, benchmark, model, prompt_set, hq, column),
        stand_in=_interval(run, benchmark, model, prompt_set, hq, other),
        stand_in_of=COLUMN_TITLES.get(other or "", ""),
        counts=(counted.n_scored, counted.n_expected),
    )


def _row(
    run: Run,
    what: tuple[str, str, str, str],
    values: dict[str, float],
    hq: str,
    *,
    interval: Difference | None,
    stand_in: Difference | None,
    stand_in_of: str,
    counts: tuple[int, int],
) -> Row:
    benchmark, prompt_set, metric, model = what
    backbone = paper.reference_backbone(run.backbone(model))
    return Row(
        *what,
        hq_system=hq,
        values=values,
        delta=minus(values.get(hq), values.get(SAM)),
        interval=interval,
        stand_in=stand_in,
        stand_in_of=stand_in_of,
        paper_sam=paper.value("SAM", benchmark, prompt_set, metric, backbone),
        paper_hq=paper.value("HQ-SAM", benchmark, prompt_set, metric, backbone),
        paper_backbone=backbone,
        n_scored=counts[0],
        n_expected=counts[1],
    )


def _pair(run: Run, benchmark: str, model: str, prompt_set: str, hq: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The per-instance rows of SAM and of HQ-SAM, in the same order."""
    frame = run.units(benchmark, model)
    chosen = frame[frame["prompt_set"] == prompt_set].set_index(["key", "unit"]).sort_index()
    sam, head = chosen[chosen["system"] == SAM], chosen[chosen["system"] == hq]
    both = sam.index.intersection(head.index)
    return sam.loc[both], head.loc[both]


def _interval(run: Run, benchmark: str, model: str, prompt_set: str, hq: str, column: str | None) -> Difference | None:
    if column is None:
        return None
    sam, head = _pair(run, benchmark, model, prompt_set, hq)
    difference = 100 * (unit_values(head, column) - unit_values(sam, column))
    return paired(np.asarray(difference, np.float64), sam["cluster"].to_numpy())


def _mean_row(run: Run, model: str, prompt_set: str, metric: str) -> Row | None:
    """The unweighted mean of the four sets; its interval resamples each set on its own."""
    parts = [make_row(run, model, name, prompt_set, metric) for name in paper.HQ4]
    rows = [part for part in parts if part is not None]
    if len(rows) < len(paper.HQ4):
        return None
    systems = [s for s in SYSTEMS if all(s in row.values for row in rows)]
    hq = rows[0].hq_system
    return _row(
        run,
        (paper.HQ4_MEAN, prompt_set, metric, model),
        {s: sum(row.values[s] for row in rows) / len(rows) for s in systems},
        hq,
        interval=_mean_interval(run, model, prompt_set, hq, UNIT_COLUMN[metric]),
        stand_in=None,
        stand_in_of="",
        counts=(sum(row.n_scored for row in rows), sum(row.n_expected for row in rows)),
    )


def _mean_interval(run: Run, model: str, prompt_set: str, hq: str, column: str) -> Difference | None:
    strata = []
    for name in paper.HQ4:
        sam, head = _pair(run, name, model, prompt_set, hq)
        difference = 100 * (unit_values(head, column) - unit_values(sam, column))
        strata.append((np.asarray(difference, np.float64), sam["cluster"].to_numpy()))
    return stratified(strata)


def spec_rows(run: Run, model: str, spec: paper.TableSpec) -> list[Row]:
    """The rows of one of the paper's tables; empty if none of its benchmarks was scored."""
    found = []
    for block in spec.blocks:
        for prompt_set in _prompt_sets(run, model, block):
            found += [make_row(run, model, block.benchmark, prompt_set, metric) for metric in block.metrics]
    return [row for row in found if row is not None]


def _prompt_sets(run: Run, model: str, block: paper.Block) -> list[str]:
    if block.prompt_set is not None:
        return [block.prompt_set]
    return run.prompt_sets(block.benchmark, model)[:1]


def other_rows(run: Run, model: str) -> list[Row]:
    """Every metric of a benchmark or prompt set that none of the paper's tables shows."""
    shown = {(b.benchmark, p) for s in paper.TABLES for b in s.blocks for p in _prompt_sets(run, model, b)}
    pairs = [(b, p) for b in run.benchmarks for p in run.prompt_sets(b, model) if (b, p) not in shown]
    return list(_all_metrics(run, model, pairs))


def _all_metrics(run: Run, model: str, pairs: Iterable[tuple[str, str]]) -> Iterator[Row]:
    for benchmark, prompt_set in pairs:
        for metric in metric_names(run, model, benchmark, prompt_set):
            row = make_row(run, model, benchmark, prompt_set, metric)
            if row is not None:
                yield row


def metric_names(run: Run, model: str, benchmark: str, prompt_set: str) -> list[str]:
    """Names of all defined metrics, in reading order."""
    results = [run.find(benchmark, model, prompt_set, s) for s in SYSTEMS]
    return sorted({name for r in results if r is not None for name in r.metrics}, key=metric_place)


def headline_rows(run: Run, model: str, metrics: Sequence[str] = HEADLINE) -> list[Row]:
    """The overview: the main metrics of every benchmark, the mean of the four HQ sets first."""
    rows = [make_row(run, model, paper.HQ4_MEAN, "gt_box", m) for m in ("mIoU", "mBIoU")]
    for benchmark in run.benchmarks:
        for prompt_set in run.prompt_sets(benchmark, model):
            rows += [make_row(run, model, benchmark, prompt_set, metric) for metric in metrics]
    return [row for row in rows if row is not None]
