"""The result table on the terminal, read from the report's own files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_base.errors import UserError
from hqsam_base.terminal import styled
from hqsam_metrics.base import Scale
from hqsam_pipelines.report import paper

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def show(root: Path, console: Console | None = None) -> None:
    """Prints ``reports/tables/overview.csv`` and where ``report.html`` lies."""
    from rich.console import Console

    console = console or Console()
    if not console.is_terminal:
        console = Console(width=110)  # a pipe or a log has no width of its own
    path = root / "reports" / "tables" / "overview.csv"
    if not path.is_file():
        raise UserError("there is no report yet", file=path, cure="run `dvc repro`")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    console.print(overview_table(rows))
    systems = path.with_name("systems.csv")
    if systems.is_file():
        console.print(
            systems_table(list(csv.DictReader(io.StringIO(systems.read_text(encoding="utf-8")))))
        )
    absent = path.with_name("absent.csv")
    if absent.is_file():
        for row in csv.DictReader(io.StringIO(absent.read_text(encoding="utf-8"))):
            line = f"{paper.title(row['benchmark'])} ({row['model']}): {row['reason']}"
            console.print(styled((line, "red")), soft_wrap=True)
    units = " or ".join(dict.fromkeys(row["unit"] for row in rows))
    explained = (
        f"Δ: HQ-SAM minus SAM, {units}. Intervals: 95 %, paired bootstrap over images or videos;"
    )
    console.print(styled((explained, "dim")))
    if any(row["verdict"] == "too few to tell" for row in rows):
        console.print("too few: too few images or videos to tell.", style="dim")
    console.print(
        styled(f"Report: {(root / 'reports' / 'report.html').resolve().as_uri()}"), soft_wrap=True
    )


def overview_table(rows: list[dict[str, str]]) -> Table:
    """The table: a line per metric, benchmarks separated."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="SAM against HQ-SAM", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in ("benchmark", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("SAM", "HQ-SAM", "Δ", "95 % interval", "paper's Δ"):
        table.add_column(name, justify="right", no_wrap=True)
    sets: dict[str, set[str]] = {}
    for row in rows:
        sets.setdefault(row["benchmark"], set()).add(row["prompt_set"])
    before = ""
    for row in rows:
        group = f"{row['benchmark']} {row['prompt_set']}"
        if before and group != before:
            table.add_section()
        title = paper.title(row["benchmark"])
        if len(sets[row["benchmark"]]) > 1:
            title += f", {row['prompt_set'].replace('_', ' ')}"
        table.add_row(styled(title if group != before else ""), *_cells(row))
        before = group
    return table


def systems_table(rows: list[dict[str, str]]) -> Table:
    """The table of the systems beside SAM and HQ-SAM: a line per system and metric, each against its own baseline."""
    from rich import box
    from rich.table import Table

    table = Table(title="Other systems", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("benchmark", "prompt", "metric", "system"):
        table.add_column(name)
    for name in ("value", "against", "Δ", "95 % interval"):
        table.add_column(name, justify="right")
    for row in rows:
        interval = (
            f"[{_fixed(row['ci_low'], sign=True)}, {_fixed(row['ci_high'], sign=True)}]"
            if row["ci_low"]
            else ""
        )
        cells = [
            paper.title(row["benchmark"]),
            row["prompt_set"],
            row["metric"],
            row["label"],
            _fixed(row["value"]),
            row["versus"],
            _fixed(row["delta"], sign=True),
            interval,
        ]
        table.add_row(*(styled(cell) for cell in cells))
    return table


def _cells(row: Mapping[str, str]) -> list[Text]:
    delta = _number(row["delta"])
    text = "" if delta is None else f"{delta:+.1f}"
    # green or red only where the report's verdict is better or worse
    tone = {"better": "green", "worse": "red"}.get(row["verdict"], "")
    interval = "too few" if row["verdict"] == "too few to tell" else ""
    if row["ci_low"]:
        interval = f"[{_fixed(row['ci_low'], sign=True)}, {_fixed(row['ci_high'], sign=True)}]"
    return [
        styled(
            Scale(unit=row["unit"], lower_is_better=row["better"] == "lower").label(row["metric"])
        ),
        styled(_fixed(row["sam"])),
        styled((_fixed(row["hq_sam"]), "bold")),
        styled((text, tone)),
        styled(interval),
        styled(_fixed(row["paper_delta"], sign=True)),
    ]


def _number(text: str) -> float | None:
    return float(text) if text else None


def _fixed(text: str, *, sign: bool = False) -> str:
    value = _number(text)
    if value is None:
        return ""
    return f"{value:+.1f}" if sign else f"{value:.1f}"
