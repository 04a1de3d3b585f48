"""Tables and curves as files: CSV in the paper's layout, `metrics.json`, data of the plots, the summary in Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hqsam.systems import System
from hqsam_base.safe_text import cell
from hqsam_metrics.base import FRACTION
from hqsam_metrics.stats import Difference
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.rows import Row
from hqsam_pipelines.report.units import quantity_values

_COLUMNS = (
    "benchmark",
    "prompt_set",
    "metric",
    "model",
    "hq_output",
    "sam",
    "hq_sam",
    "delta",
    "ci_low",
    "ci_high",
    "p",
    "verdict",
    "instance_quantity",
    "instance_delta",
    "instance_ci_low",
    "instance_ci_high",
)
_MORE = (
    "n_scored",
    "n_expected",
    "clusters",
    "paper_backbone",
    "paper_sam",
    "paper_hq_sam",
    "paper_delta",
    "unit",
    "better",
    "comparable",
)

THRESHOLDS = np.round(np.arange(0.5, 0.951, 0.05), 2)


_EXACT = 4
"""Digits of what the terminal rounds again; with two, 8.4529 would be 8.5 in the report and 8.4 there."""


def number(value: float | None, digits: int = 2) -> str:
    """A number for a CSV cell: fixed digits, empty when undefined."""
    return "" if value is None or not np.isfinite(value) else f"{value + 0.0:.{digits}f}"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """CSV with a header line and Unix line ends; no cell is a formula (`hqsam_base.safe_text.cell`)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(text) for text in row] for row in rows)
    return out.getvalue()


def columns(systems: Sequence[System]) -> list[str]:
    """Columns of a table's CSV; among them the value of every system that is compared with another."""
    return [*_COLUMNS, *(system.name for system in systems if system.versus is not None), *_MORE]


def table_csv(rows: Sequence[Row], systems: Sequence[System]) -> str:
    """One table as CSV with the `columns` of a run's systems."""
    return csv_text(columns(systems), [_cells(row, systems) for row in rows])


def _cells(row: Row, systems: Sequence[System]) -> list[str]:
    main, other = _bounds(row.interval), _bounds(row.stand_in)
    known = row.interval or row.stand_in
    return [
        row.benchmark,
        row.prompt_set,
        row.metric,
        row.model,
        row.hq_system,
        number(row.sam, _EXACT),
        number(row.hq, _EXACT),
        number(row.delta, _EXACT),
        *main[1:],
        "" if row.judged.p != row.judged.p else f"{row.judged.p:.4f}",
        row.judged.verdict,
        row.stand_in_of.title if row.stand_in_of else "",
        *other,
        *(
            number(row.values.get(system.name), _EXACT)
            for system in systems
            if system.versus is not None
        ),
        str(row.n_scored),
        str(row.n_expected),
        str(known.clusters) if known else "",
        row.paper_backbone if row.paper_sam is not None else "",
        number(row.paper_sam, 1),
        number(row.paper_hq, 1),
        number(row.paper_delta, 1),
        row.scale.unit,
        "lower" if row.scale.lower_is_better else "higher",
        row.comparable,
    ]


def _bounds(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", "", ""]
    return [
        number(difference.mean, _EXACT),
        number(difference.low, _EXACT),
        number(difference.high, _EXACT),
    ]


def metrics_tree(run: Run) -> dict[str, Any]:
    """The content of ``reports/metrics.json``: ``{benchmark: {prompt_set: {system: {metric: value}}}}``.

    For `dvc metrics show` and `diff`, so without what nobody reads there: average recall, decay,
    boundary AP by size or frequency (these are in ``reports/metrics/``).

    Fractions as in the metrics files, six digits. The systems of a second and further model are
    named
    ``<model>:<system>``, so that adding one moves no existing key. ``HQ4-mean`` is the
    unweighted mean of the four HQ sets.
    """
    tree: dict[str, Any] = {}
    for result in run.results:
        name = _system_key(run, result.model, result.system)
        shown = {m: v for m, v in result.metrics.items() if not result.score.value(m).detail}
        values: dict[str, float] = {m: round(v, 6) for m, v in shown.items()}
        values |= {"n_scored": result.n_scored, "n_expected": result.n_expected}
        tree.setdefault(result.benchmark, {}).setdefault(result.prompt_set, {})[name] = values
    means = {}
    headline = run.score(paper.HQ4[0]).headline if paper.HQ4[0] in run.benchmarks else ()
    for model, system in product(run.models, (system.name for system in run.systems)):
        found = [run.find(name, model, "gt_box", system) for name in paper.HQ4]
        whole = [r.metrics for r in found if r is not None and set(headline) <= r.metrics.keys()]
        if headline and len(whole) == len(paper.HQ4):
            means[_system_key(run, model, system)] = {
                metric: round(sum(metrics[metric] for metrics in whole) / len(whole), 6)
                for metric in headline
            }
    if means:
        tree[paper.HQ4_MEAN] = {"gt_box": means}
    return tree


def _system_key(run: Run, model: str, system: str) -> str:
    return system if model == run.models[0] else f"{model}:{system}"


def curve_table(root: Path, models: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The training curves of all models, one below the other: a column ``model``, then those of ``curves.csv``."""
    columns: list[str] = ["model"]
    records: list[dict[str, str]] = []
    for model in models:
        path = root / "models" / model / "curves.csv"
        if path.is_file():
            reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
            columns += [name for name in reader.fieldnames or () if name not in columns]
            records += [{"model": model, **line} for line in reader]
    return columns, [[record.get(name, "") or "" for name in columns] for record in records]


def recall_curves(
    run: Run, model: str, benchmarks: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Share of units whose boundary IoU reaches each threshold, in percent: ``{system: {benchmark: [T values]}}``.

    As in the paper's Figure 4 (thresholds 0.5 to 0.95). Undefined units count as not reaching it. A
    benchmark whose metric pictures no fraction has no such curve.
    """
    curves: dict[str, dict[str, list[float]]] = {}
    for benchmark in benchmarks:
        quantity = run.score(benchmark).pictured
        if quantity is None or quantity.scale != FRACTION:
            continue
        frame = run.units(benchmark, model)
        frame = frame[frame["prompt_set"] == run.prompt_sets(benchmark, model)[0]]
        baseline = run.baseline(benchmark)
        for system in (baseline, run.hq_system(benchmark)):
            values = quantity_values(frame[frame["system"] == system], quantity)
            if len(values):
                shares = [100 * float(np.mean(values >= t)) for t in THRESHOLDS]
                curves.setdefault("sam" if system == baseline else "hq_sam", {})[benchmark] = shares
    return curves


def recall_csv(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The curves as CSV: threshold, then SAM and HQ-SAM averaged over benchmarks, then one column per pair."""
    names = sorted(curves.get("sam", {}))
    columns = ["biou_threshold", "sam", "hq_sam"] + [
        f"{b}_{s}" for b in names for s in ("sam", "hq_sam")
    ]
    rows = []
    for place, threshold in enumerate(THRESHOLDS):
        means = (
            [float(np.mean([curves[s][b][place] for b in names])) for s in ("sam", "hq_sam")]
            if names
            else []
        )
        single = [curves[s][b][place] for b in names for s in ("sam", "hq_sam")]
        rows.append([f"{threshold:.2f}", *(number(v) for v in (*means, *single))])
    return csv_text(columns, rows if names else [])


def systems_csv(rows: Sequence[Row], run: Run) -> str:
    """The systems beside SAM and HQ-SAM, each against its baseline, as CSV."""
    names = (
        "benchmark",
        "prompt_set",
        "metric",
        "model",
        "system",
        "label",
        "versus",
        "value",
        "baseline",
        "delta",
        "ci_low",
        "ci_high",
        "verdict",
        "n_scored",
        "n_expected",
        "unit",
        "better",
    )
    cells = [
        [
            row.benchmark,
            row.prompt_set,
            row.metric,
            row.model,
            row.hq_system,
            run.system(row.hq_system).label,
            versus(row, run),
            number(row.hq, _EXACT),
            number(row.sam, _EXACT) if row.baseline != row.hq_system else "",
            number(row.delta, _EXACT),
            *_bounds(row.interval)[1:],
            row.judged.verdict,
            str(row.n_scored),
            str(row.n_expected),
            row.scale.unit,
            "lower" if row.scale.lower_is_better else "higher",
        ]
        for row in rows
    ]
    return csv_text(names, cells)


def versus(row: Row, run: Run) -> str:
    """Label of what a row's system is compared with; empty for a baseline."""
    return run.system(row.baseline).label if row.baseline != row.hq_system else ""


ABSENT = "no result: a stage failed or was not run"
"""What the report says of a benchmark and a model without results."""


def absent_csv(run: Run) -> str:
    """The (benchmark, model) pairs without results as CSV."""
    return csv_text(("benchmark", "model", "reason"), [(b, m, ABSENT) for b, m in run.absent])


def summary_markdown(rows: Sequence[Row], absent: Sequence[tuple[str, str]] = ()) -> str:
    """The overview as a Markdown table; benchmarks without results have a line each at its end."""
    head = "| benchmark | prompt | metric | SAM | HQ-SAM | Δ | 95 % interval | paper's Δ |"
    lines = [head, "|---|---|---|--:|--:|--:|:-:|--:|"]
    for row in rows:
        cells = [
            paper.title(row.benchmark),
            row.prompt_set,
            row.label,
            number(row.sam, 1),
            number(row.hq, 1),
        ]
        cells += [signed(row.delta), interval_text(row.interval), signed(row.paper_delta)]
        lines.append("| " + " | ".join(cells) + " |")
    for benchmark, model in absent:
        lines.append(f"| {paper.title(benchmark)} ({model}) | | {ABSENT} | | | | | |")
    return "\n".join(lines) + "\n"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference with its sign, empty when undefined."""
    if value is None or not np.isfinite(value):
        return ""
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def interval_text(difference: Difference | None, digits: int = 1) -> str:
    """``[low, high]``, ``too few`` images, or a dash where there is none."""
    if difference is not None and difference.too_few:
        return "too few"
    if difference is None or not np.isfinite(difference.low):
        return "–"
    return f"[{signed(difference.low, digits)}, {signed(difference.high, digits)}]"
