"""Prints a comparison on a terminal of any width: the answer, then the headline rows, then the rest.

Numbers are never cut: where the columns do not fit, p-values and values go first, and on a very
narrow terminal every row takes two lines.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hqsam_base.safe_text import sanitize
from hqsam_base.terminal import styled
from hqsam_pipelines.compare.answer import FOLDED, Answer, answer
from hqsam_pipelines.compare.cells import Names, cells, folded_line, several_systems, untested
from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.rows import Change

if TYPE_CHECKING:
    from rich.console import Console

_KEYS = 6  # differing parameters that the terminal shows
_STYLES = {"better": "green", "worse": "bold red", "mixed": "yellow", "cannot be told": "yellow"}
_HEADS = {
    "name": "benchmark",
    "system": "system",
    "metric": "metric",
    "a": "A",
    "b": "B",
    "difference": "B-A",
    "interval": "95 % interval",
    "p": "p",
    "units": "instances",
    "verdict": "verdict",
}
_RIGHT = ("a", "b", "difference", "interval", "p", "units")
_SHED = ("units", "p", "a", "b", "system")  # columns that go first where there is no room
_NAME = 14  # columns that a benchmark's name has at least


def show(
    comparison: Comparison, console: Console, *, every: bool = False, top: int | None = None
) -> None:
    """Prints the comparison.

    Args:
        comparison: what to print.
        console: where to.
        every: also all rows that are no headline or did not move.
        top: only so many headline rows, those that are farthest from noise.
    """
    found = answer(comparison)
    say_answer(found, console)
    notes = untested(comparison)
    for text in notes:
        _wrapped(f"note: {text}", console, "yellow")
    console.print()
    rows = list(comparison.changes) if every else list(farthest(found, top))
    if rows:
        print_rows(rows, comparison, console)
    if not every:
        # what is not shown, so that the counts can be followed
        hidden = len(found.moved) - len(farthest(found, top))
        if hidden:
            _wrapped(f"{hidden} more of the {len(found.rows)} headline rows without --top", console)
        line = folded_line(comparison, found.folded)
        if line:
            _wrapped(line, console, "dim")
        further = len(comparison.changes) - len(found.rows)
        if further:
            _wrapped(f"--all shows {further} further rows (systems, thresholds, sizes)", console)
    console.print()
    for side, revision in (("A", comparison.a), ("B", comparison.b)):
        _wrapped(f"{side}  {revision.label}  {revision.subject}", console)
    for key, left, right in comparison.params[:_KEYS]:
        _wrapped(f"params {key}: {left} → {right}", console)
    if len(comparison.params) > _KEYS:
        more = len(comparison.params) - _KEYS
        _wrapped(f"params: {more} more keys differ (--html, --json)", console)
    _wrapped(comparison.method, console, "dim")


def show_several(comparisons: Sequence[Comparison], console: Console) -> None:
    """Prints several revisions, each against the same A: the answers, then the headline rows side by side."""
    from rich.table import Table

    a = comparisons[0].a
    _wrapped(f"A  {a.label}  {a.subject}", console)
    for comparison in comparisons:
        say_answer(answer(comparison), console, name=comparison.b.label)
        for text in untested(comparison):
            _wrapped(f"note: {text}", console, "yellow")
    console.print()
    lines: dict[tuple[str, str], list[str]] = {}
    for place, comparison in enumerate(comparisons):
        names = Names(comparison.changes)
        for row in answer(comparison).rows:
            label = comparison.system(row.system).label
            key = names.whole(row), f"{cells(row)['metric']} ({label})"
            line = lines.setdefault(key, [""] * len(comparisons))
            line[place] = f"{cells(row)['difference']} {row.verdict}"
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("benchmark", "metric", *(c.b.name for c in comparisons)):
        table.add_column(styled(name), overflow="fold")
    for (name, metric), texts in lines.items():
        table.add_row(*map(styled, (name, metric, *texts)))
    console.print(table)


def say_answer(found: Answer, console: Console, name: str = "B") -> None:
    """Prints the answer: on one line if it fits in a short form, else broken after its head."""
    text = sanitize(found.sentence(name, width=console.width))
    first, _, rest = text.partition("; ")
    lines = [text] if len(text) <= console.width else [first, rest]
    for line in lines:
        _wrapped(line, console, f"bold {_STYLES.get(found.outcome, '')}".strip())


def farthest(found: Answer, top: int | None) -> Sequence[Change]:
    """The headline rows that moved, or the `top` of them with the smallest p-values, in their order."""
    if top is None:
        return found.moved

    def evidence(row: Change) -> tuple[float, float]:
        p = row.p_family if row.p_family == row.p_family else 2.0
        return p, -abs(row.difference or 0.0)

    chosen = sorted(found.moved, key=evidence)[:top]
    return [row for row in found.moved if row in chosen]


def print_rows(rows: Sequence[Change], comparison: Comparison, console: Console) -> None:
    """Prints rows as a table that fits the console."""
    from rich.table import Table

    names = Names(comparison.changes)
    lines = [
        {"name": names.whole(r), "system": comparison.system(r.system).label, **cells(r)}
        for r in rows
    ]
    several = several_systems(rows, comparison)
    columns = fitting(lines, console.width, [k for k in _HEADS if several or k != "system"])
    if not columns:
        for row, line in zip(rows, lines, strict=True):
            _wrapped(f"{line['name']} {line['metric']}", console)
            values = [line["difference"], line["interval"]]
            for text in (" ".join(v for v in values if v), row.verdict):
                console.print(styled(("  " + text, _STYLES.get(row.verdict, ""))), soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for key in columns:
        table.add_column(
            _HEADS[key],
            justify="right" if key in _RIGHT else "left",
            no_wrap=key != "name",
            overflow="fold",
        )
    for row, line in zip(rows, lines, strict=True):
        style = _STYLES.get(row.verdict, "dim" if row.verdict in FOLDED else "")
        table.add_row(*(styled((line[key], style if key == "verdict" else "")) for key in columns))
    console.print(table)


def fitting(lines: Sequence[dict[str, str]], width: int, columns: Sequence[str]) -> list[str]:
    """The columns that fit into a width without a cell being cut; none if not even the last ones do."""
    wide = {key: max(len(t) for t in (_HEADS[key], *(x[key] for x in lines))) for key in columns}
    kept = [key for key in columns if wide[key] and any(line[key] for line in lines)]
    for shed in (None, *_SHED):
        kept = [key for key in kept if key != shed]
        need = sum(wide[key] + 1 for key in kept if key != "name")
        if need + min(wide["name"], _NAME) <= width and (
            shed is not None or need + wide["name"] <= width
        ):
            return kept
    return []


def _wrapped(text: str, console: Console, style: str = "") -> None:
    """Prints text from anywhere, broken between words only; a longer word stays whole."""
    lines = textwrap.wrap(
        sanitize(text),
        max(console.width, 20),
        break_long_words=False,
        break_on_hyphens=False,
        subsequent_indent="  ",
    )
    for line in lines or [""]:
        console.print(styled((line, style)), soft_wrap=True)
