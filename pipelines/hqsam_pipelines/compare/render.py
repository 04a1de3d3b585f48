"""Shows a comparison: on the terminal, as JSON, as one self-contained HTML page."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from hqsam_base.terminal import styled
from hqsam_metrics.base import Scale
from hqsam_metrics.stats import Difference
from hqsam_pipelines.compare.answer import answer, headlines
from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.rows import Change, Instance, hq_system
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import further
from hqsam_pipelines.report.tables import interval_text, number, signed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hqsam.systems import System

VERSION = 2
_KEYS = 6  # differing parameters that the terminal shows
_STYLES = {"better": "green", "worse": "bold red", "not comparable": "yellow", "missing": "yellow"}


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values; NaN and unknown become null."""
    return {
        "version": VERSION,
        "answer": {"status": answer(comparison).status, "line": answer(comparison).line},
        "a": _revision(comparison, "a"),
        "b": _revision(comparison, "b"),
        "method": comparison.method,
        "rows": [_row(change, comparison.system(change.system)) for change in comparison.changes],
        "missing": list(comparison.missing),
        "notes": list(comparison.notes),
        "commits": list(comparison.commits),
        "params": [dict(zip(("key", "a", "b"), entry, strict=True)) for entry in comparison.params],
        "outputs": list(comparison.outputs),
        "instances": [vars(instance) for instance in comparison.instances],
        "n_tested": comparison.tested,
        "n_regressions": len(comparison.regressions),
    }


def _revision(comparison: Comparison, side: str) -> dict[str, str]:
    revision = getattr(comparison, side)
    return {"name": revision.name, "commit": revision.sha, "subject": revision.subject}


def _row(change: Change, system: System) -> dict[str, Any]:
    interval = change.interval
    return {
        "benchmark": change.benchmark,
        "model": change.model,
        "prompt_set": change.prompt_set,
        "system": change.system,
        "label": system.label,
        "versus": system.versus,
        "metric": change.metric,
        "unit": change.scale.unit,
        "better": "lower" if change.scale.lower_is_better else "higher",
        "a": change.a,
        "b": change.b,
        "difference": change.difference,
        "interval": None
        if interval is None or math.isnan(interval.low)
        else [interval.low, interval.high],
        "p": None if interval is None or math.isnan(interval.p) else interval.p,
        "p_family": None if math.isnan(change.p_family) else change.p_family,
        "n": None if interval is None else interval.n,
        "clusters": None if interval is None else interval.clusters,
        "verdict": change.verdict,
        "note": change.note,
        "protocol": [dict(zip(("key", "a", "b"), entry, strict=True)) for entry in change.protocol],
    }


def show(comparison: Comparison, console: Console, *, every: bool = False) -> None:
    """Prints the comparison.

    Args:
        comparison: what to print.
        console: where to.
        every: also rows without a test (AP at single thresholds and sizes) and further systems.
    """
    a, b = comparison.a, comparison.b
    console.print(styled((answer(comparison).line, "bold")), soft_wrap=True)
    console.print(styled("A  ", (a.label, "bold"), "  ", a.subject))
    console.print(styled("B  ", (b.label, "bold"), "  ", b.subject))
    console.print(comparison.method, style="dim", highlight=False)
    rows = list(comparison.changes) if every else headlines(comparison)
    moved = [c for c in rows if every or c.verdict != "cannot move"]
    if moved:
        console.print(terminal_table(moved, comparison, console))
    if len(moved) < len(rows):
        console.print(styled(("cannot move", "dim"), f" {_folded(rows, comparison)}"))
    for note in dict.fromkeys(c.note for c in comparison.changes if c.verdict == "not comparable"):
        console.print(styled(("not comparable", "yellow"), f" {note}"))
    for key, left, right in comparison.params[:_KEYS]:
        console.print(styled(("params", "dim"), f" {key}: {left} → {right}"))
    if len(comparison.params) > _KEYS:
        console.print(
            styled(
                ("params", "dim"),
                f" and {len(comparison.params) - _KEYS} more keys differ: --html, --json",
            )
        )
    for text in comparison.missing:
        console.print(styled(("missing", "yellow"), f" {text}"))
    for text in comparison.notes:
        console.print(styled(("note", "yellow"), f" {text}"))


def _folded(rows: list[Change], comparison: Comparison) -> str:
    """Names the rows in which every instance is equal."""
    several = len({c.model for c in comparison.changes}) > 1
    return "; ".join(_name(c, several) for c in rows if c.verdict == "cannot move")


def to_markdown(comparison: Comparison) -> str:
    """The answer and the headline rows as a table to paste; names cannot break out of a cell."""
    several = len({c.model for c in comparison.changes}) > 1
    lines = [
        f"**{_escaped(answer(comparison).line)}**",
        "",
        f"A: {_escaped(comparison.a.label)}, B: {_escaped(comparison.b.label)}",
        "",
        "| row | A | B | B − A | 95 % interval | verdict |",
        "|---|--:|--:|--:|---|---|",
    ]
    for c in headlines(comparison):
        cells = [
            f"{_name(c, several)}, {comparison.system(c.system).label}",
            number(c.a),
            number(c.b),
            signed(c.difference, 2),
            interval_text(c.interval, 2),
            c.verdict,
        ]
        lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
    if comparison.notes:
        lines += ["", *(f"- {_escaped(note)}" for note in comparison.notes)]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    r"""Text that Markdown shows as it is: no markup, no mention, no cell or line ends."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*_|\[\]!#])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")


def is_main(comparison: Comparison, change: Change) -> bool:
    """Whether a row belongs into the short table: headline metrics, means, tested rows, of one system of each owner.

    Of SAM and HQ-SAM that is what the benchmark's protocol says.
    """
    output = comparison.system(hq_system(comparison.b, change.benchmark))
    others = further(comparison.systems, output.name)
    shown = {output.name, output.versus, *(system.name for system in others)}
    return (change.main or change.interval is not None) and change.system in shown


_SHED = ("p", "A", "B", "system")
"""Columns in the order in which a narrow terminal does without them."""


def terminal_table(changes: list[Change], comparison: Comparison, console: Console) -> Table | Text:
    """Rows as a table that fits the terminal, or stacked where even the narrowest table does not."""
    from rich.measure import Measurement

    for shed in range(len(_SHED) + 1):
        table = _table(changes, comparison, _SHED[:shed])
        unbounded = console.options.update(width=10_000, max_width=10_000)
        if Measurement.get(console, unbounded, table).maximum <= console.width:
            return table
    several = len({c.model for c in comparison.changes}) > 1
    return styled(
        "\n".join(
            f"{_name(c, several)}, {comparison.system(c.system).label}\n  "
            f"{signed(c.difference, 2)} {interval_text(c.interval, 2)} {c.verdict}"
            for c in changes
        )
    )


def _table(changes: list[Change], comparison: Comparison, shed: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table

    names = ("benchmark", "system", "metric", "A", "B", "B-A", "95 % interval", "p", "verdict")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        if name not in shed:
            right = name in ("A", "B", "B-A")
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
    several = len({c.model for c in changes}) > 1
    before: tuple[str, ...] = ()
    for change in changes:
        group = (change.benchmark, change.model, change.prompt_set)
        if before and group != before:
            table.add_section()
        label = comparison.system(change.system).label
        cells = zip(names, _cells(change, label, group != before, several), strict=True)
        table.add_row(*(cell for name, cell in cells if name not in shed))
        before = group
    return table


def _cells(change: Change, label: str, first: bool, several_models: bool) -> list[Text]:
    name = f"{paper.title(change.benchmark)} {change.prompt_set}" + (
        f" {change.model}" if several_models else ""
    )
    verdict = "–" if change.verdict == "not tested" else change.verdict
    cells = [
        name if first else "",
        label,
        change.scale.label(change.metric),
        number(change.a),
        number(change.b),
        signed(change.difference, 2),
        interval_text(change.interval, 2),
        _p(change.p_family),
    ]
    return [*map(styled, cells), styled((verdict, _STYLES.get(change.verdict, "")))]


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def to_html(comparison: Comparison) -> str:
    """The comparison as a page that needs no network."""
    from markupsafe import Markup

    from hqsam_pipelines.compare.gallery import pictures
    from hqsam_pipelines.report.html import embed, render

    drawn, notes = pictures(comparison)
    main = [c for c in comparison.changes if is_main(comparison, c)]
    rest = [c for c in comparison.changes if not is_main(comparison, c)]
    several = len({c.model for c in comparison.changes}) > 1
    context = {
        "title": f"{comparison.a.label} → {comparison.b.label}",
        "a": comparison.a,
        "b": comparison.b,
        "method": comparison.method,
        "line": answer(comparison).line,
        "chart": Markup(
            _chart(
                [c for c in main if c.interval is not None and comparison.system(c.system).versus],
                several,
            )
        ),
        "main": [_html_row(c, comparison.system(c.system).label, several) for c in main],
        "rest": [_html_row(c, comparison.system(c.system).label, several) for c in rest],
        "refused": list(
            dict.fromkeys(c.note for c in comparison.changes if c.verdict == "not comparable")
        ),
        "missing": comparison.missing,
        "notes": (*comparison.notes, *notes),
        "pictures": [embed(picture) for picture in drawn],
        "commits": comparison.commits,
        "params": comparison.params,
        "outputs": comparison.outputs,
        "instances": [
            _instance(i, comparison.system(i.system).label, several) for i in comparison.instances
        ],
    }
    return render("compare.html.j2", context)


def _chart(changes: list[Change], several: bool) -> str:
    from hqsam_pipelines.report.charts import interval_chart

    tones = {"better": "up", "worse": "down"}
    charts: dict[Scale, list[tuple[str, float, float, float, str]]] = {}
    for c in changes:
        if c.interval is not None and not math.isnan(c.interval.low):
            line = (
                _name(c, several),
                c.interval.low,
                c.interval.mean,
                c.interval.high,
                tones.get(c.verdict, "flat"),
            )
            charts.setdefault(c.scale, []).append(line)
    return "".join(
        interval_chart(lines, "Differences with 95 % intervals", f"B minus A, {scale.unit}")
        for scale, lines in charts.items()
    )


def _benchmark(row: Change | Instance, several: bool) -> str:
    """The benchmark's title, with the model where there are several."""
    return paper.title(row.benchmark) + (f" ({row.model})" if several else "")


def _name(change: Change, several: bool) -> str:
    metric = (
        change.scale.label(change.metric)
        .replace("instance", "inst.")
        .replace("boundary IoU", "BIoU")
    )
    return f"{_benchmark(change, several)}, {change.prompt_set.replace('_', ' ')} . {metric}"


def _html_row(change: Change, label: str, several: bool) -> dict[str, Any]:
    tones = {"better": "up", "worse": "down", "not comparable": "down"}
    return {
        "benchmark": _benchmark(change, several),
        "prompt": change.prompt_set,
        "system": label,
        "metric": change.scale.label(change.metric),
        "a": number(change.a),
        "b": number(change.b),
        "difference": signed(change.difference, 2),
        "interval": interval_text(change.interval, 2),
        "p": _p(change.p_family),
        "units": _units(change.interval),
        "verdict": "–" if change.verdict == "not tested" else change.verdict,
        "tone": tones.get(change.verdict, "flat"),
        "note": change.note,
    }


def _units(interval: Difference | None) -> str:
    return "" if interval is None else f"{interval.n} in {interval.clusters}"


def _instance(instance: Instance, label: str, several: bool) -> dict[str, str]:
    return {
        "benchmark": _benchmark(instance, several),
        "prompt": instance.prompt_set,
        "system": label,
        "key": instance.key,
        "unit": instance.unit,
        "a": number(instance.a, 1),
        "b": number(instance.b, 1),
        "difference": signed(instance.b - instance.a),
        "tone": "up" if instance.gain > 0 else "down",
    }
