"""The numbers of a report: gathered once for all tables, charts and the page, and written as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hqsam_base.atomic import atomic_folder
from hqsam_pipelines.report import ablations as report_ablations
from hqsam_pipelines.report import cost, errors, full, paper, published
from hqsam_pipelines.report import curves as report_curves
from hqsam_pipelines.report import tables as report_tables
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.rows import (
    Row,
    headline_rows,
    judged,
    other_rows,
    spec_rows,
    system_rows,
)


@dataclass(frozen=True)
class Numbers:
    """Everything that is computed from metrics and per-instance tables."""

    overview: list[Row]
    tables: list[tuple[paper.TableSpec, list[Row]]]
    others: list[Row]
    curves: dict[str, dict[str, list[float]]]
    training: tuple[list[str], list[list[str]]]
    ablations: list[report_ablations.AblationRow]
    models: list[Row]
    systems: list[Row]
    published: list[published.Cell]
    full: list[full.Number]
    diagnosed: list[errors.Diagnosed]
    sizes: list[tuple[str, str, str, int, float, float]]
    steps: list[report_curves.Steps]


def gather(run: Run) -> Numbers:
    """Computes everything that the report shows of the first model, and the headline of the others."""
    model = run.models[0]
    overview = judged(headline_rows(run, model))
    tables = [(spec, judged(spec_rows(run, model, spec), overview)) for spec in paper.TABLES]
    hq4 = [b for b in paper.HQ4 if b in run.benchmarks]
    ablations = report_ablations.rows(run)
    more = [] if ablations else run.models[1:]  # the grid has a table of its own
    return Numbers(
        overview=overview,
        tables=[(spec, rows) for spec, rows in tables if rows],
        others=judged(other_rows(run, model), overview),
        curves=report_tables.recall_curves(run, model, hq4),
        training=report_tables.curve_table(run.root, run.models),
        ablations=ablations,
        models=[row for name in more for row in judged(headline_rows(run, name))],
        systems=judged(system_rows(run, model)),
        published=published.cells(run),
        full=full.numbers(run),
        diagnosed=errors.diagnosed(run, model),
        sizes=errors.sizes(run, model),
        steps=report_curves.steps(run, model),
    )


def write_tables(folder: Path, numbers: Numbers, run: Run) -> None:
    """Writes `reports/tables`, whole or not at all."""
    with atomic_folder(folder) as tmp:
        for name, text in _files(numbers, folder.name).items():
            (tmp / name).write_text(text, encoding="utf-8")
        (tmp / "overview.md").write_text(
            report_tables.summary_markdown(numbers.overview, run.absent), encoding="utf-8"
        )
        if run.absent:
            (tmp / "absent.csv").write_text(report_tables.absent_csv(run), encoding="utf-8")
        (tmp / "overview.csv").write_text(
            report_tables.table_csv(numbers.overview, run.systems), encoding="utf-8"
        )
        for spec, rows in numbers.tables:
            (tmp / f"{spec.name}.csv").write_text(
                report_tables.table_csv(rows, run.systems), encoding="utf-8"
            )
        (tmp / "paper.csv").write_text(published.table_csv(numbers.published), encoding="utf-8")
        (tmp / "all_numbers.csv").write_text(full.table_csv(numbers.full), encoding="utf-8")
        (tmp / "table10_cost.csv").write_text(cost.cost_csv(), encoding="utf-8")
        (tmp / "further.csv").write_text(
            report_tables.table_csv(numbers.others, run.systems), encoding="utf-8"
        )
        if numbers.systems:
            (tmp / "systems.csv").write_text(
                report_tables.systems_csv(numbers.systems, run), encoding="utf-8"
            )
        if numbers.models:
            (tmp / "models.csv").write_text(
                report_tables.table_csv(numbers.models, run.systems), encoding="utf-8"
            )
        if numbers.ablations:
            (tmp / "ablations.csv").write_text(
                report_ablations.table_csv(numbers.ablations), encoding="utf-8"
            )
            (tmp / "ablations.md").write_text(
                report_ablations.markdown(numbers.ablations), encoding="utf-8"
            )


def write_plots(folder: Path, numbers: Numbers) -> None:
    """Writes `reports/plots`, the data of the curves, whole or not at all."""
    with atomic_folder(folder) as tmp:
        text = report_tables.csv_text(*numbers.training)
        (tmp / "training_curve.csv").write_text(text, encoding="utf-8")
        (tmp / "recall_biou.csv").write_text(
            report_tables.recall_csv(numbers.curves), encoding="utf-8"
        )
        for name, text in _files(numbers, folder.name).items():
            (tmp / name).write_text(text, encoding="utf-8")
        if numbers.steps:
            (tmp / "points.csv").write_text(
                report_curves.steps_csv(numbers.steps), encoding="utf-8"
            )


def _files(numbers: Numbers, folder: str) -> dict[str, str]:
    """The files about errors that belong into a folder, by name."""
    found = errors.files(numbers.diagnosed, numbers.sizes)
    return {path.partition("/")[2]: text for path, text in found.items() if path.startswith(folder)}
