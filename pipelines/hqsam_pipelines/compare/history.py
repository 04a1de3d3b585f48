"""The headline numbers of every commit that carries a report, read from git: values of HQ-SAM with their intervals."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.safe_text import sanitize
from hqsam_pipelines.compare.markdown import escaped
from hqsam_pipelines.compare.revisions import Repository
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.tables import csv_text, number

OVERVIEW = "reports/tables/overview.csv"
_NEEDED = ("benchmark", "prompt_set", "metric", "hq_sam")
_MOST_ROWS = 2000
_MOST = 1e9
_NUMBERS = ("sam", "hq_sam", "delta", "ci_low", "ci_high")

Row = tuple[str, str, str]
"""Benchmark, prompt set, metric."""


@dataclass(frozen=True)
class Point:
    """One headline number at one commit, as the report shows it; NaN where it has none.

    Attributes:
        hq_sam, sam: the values.
        delta: HQ-SAM minus SAM.
        ci_low, ci_high: its 95 % interval.
        verdict: the report's, empty in old reports.
    """

    sam: float
    hq_sam: float
    delta: float
    ci_low: float
    ci_high: float
    verdict: str

    @property
    def ends(self) -> tuple[float, float]:
        """The interval of the difference to SAM, moved to HQ-SAM's value: what SAM, which is frozen, leaves of it."""
        return self.hq_sam + self.ci_low - self.delta, self.hq_sam + self.ci_high - self.delta


@dataclass(frozen=True)
class Entry:
    """The report of one commit.

    Attributes:
        sha, date, subject: of the commit.
        points: its headline numbers, in the report's order.
    """

    sha: str
    date: str
    subject: str
    points: Mapping[Row, Point]


@dataclass(frozen=True)
class History:
    """The reports of a repository.

    Attributes:
        entries: oldest first.
        rows: the headline rows that any of them has, in the newest report's order.
        notes: reports that could not be read.
    """

    entries: tuple[Entry, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def history(root: Path, *, since: str | None = None, metrics: Sequence[str] = ()) -> History:
    """Reads the headline numbers of every commit that changed the report.

    Args:
        root: the repository.
        since: the first revision; None: all.
        metrics: names of metrics or benchmarks; several are alternatives; none: all.

    Raises:
        UserError: no git repository, unknown revision, no report, a metric that no report has.
    """
    repository = Repository(root)
    entries, notes = [], []
    for sha, date, subject in repository.with_report(OVERVIEW, since):
        try:
            points = _points(repository.read(sha, OVERVIEW) or b"", f"{OVERVIEW} at {sha[:9]}")
        except UserError as error:
            notes.append(f"{sha[:9]} is left out: {error.problem}")
            continue
        if points:
            entries.append(Entry(sha, date, subject, points))
    if not entries:
        cure = "commit reports/ after `dvc repro`, or give another revision with --since"
        raise UserError("no commit has a report", file=OVERVIEW, cure=cure)
    rows = tuple(dict.fromkeys(row for entry in reversed(entries) for row in entry.points))
    known = {name for row in rows for name in (row[0], paper.title(row[0]), row[2])}
    for word in metrics:
        if word not in known:
            close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
            listed = f"one of: {', '.join(sorted(known))}"
            cure = f"did you mean {close[0]}?" if close else listed
            raise UserError("no report has this metric", key=f"--metric {word}", cure=cure)
    wanted = set(metrics)
    return History(
        tuple(entries),
        tuple(r for r in rows if not wanted or wanted & {r[0], paper.title(r[0]), r[2]}),
        tuple(notes),
    )


def _points(text: bytes, where: str) -> dict[Row, Point]:
    """The numbers of one overview.csv of any age.

    Raises:
        UserError: it is none.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(text.decode("utf-8", errors="replace"))))
    except csv.Error as error:
        raise UserError(f"its table is no CSV: {error}", file=where) from error
    lacking = [n for n in _NEEDED if lines and n not in lines[0]]
    if lacking or len(lines) > _MOST_ROWS:
        problem = (
            f"its table lacks the columns {', '.join(lacking)}" if lacking else "too many rows"
        )
        raise UserError(problem, file=where)
    found = {}
    for line in lines:
        row = tuple(sanitize(str(line[name] or ""))[:80] for name in _NEEDED[:3])
        values = {name: _number(line.get(name)) for name in _NUMBERS}
        if not math.isnan(values["hq_sam"]):
            verdict = sanitize(str(line.get("verdict") or ""))[:40]
            found[row[0], row[1], row[2]] = Point(**values, verdict=verdict)
    return found


def _number(text: object) -> float:
    try:
        value = float(str(text))
    except ValueError:
        return math.nan
    return value if abs(value) <= _MOST else math.nan  # a chart cannot span what is larger


def label(row: Row, rows: Sequence[Row]) -> str:
    """How a headline row is called: with its prompt set where the benchmark has several."""
    several = len({r[1] for r in rows if r[0] == row[0]}) > 1
    prompt = f", {row[1].replace('_', ' ')}" if several else ""
    return f"{paper.title(row[0])}{prompt} {row[2]}"


def to_csv(found: History) -> str:
    """One line for each commit and headline row."""
    columns = ["commit", "date", *_NEEDED[:3], *_NUMBERS, "verdict"]
    lines = [
        [entry.sha, entry.date, *row, *(number(getattr(point, n)) for n in _NUMBERS), point.verdict]
        for entry in found.entries
        for row, point in entry.points.items()
        if row in found.rows
    ]
    return csv_text(columns, lines)


def to_markdown(found: History) -> str:
    """A table, newest commit first."""
    rows = shown(found)
    heads = ["commit", "date", *(label(row, found.rows) for row in rows), "subject"]
    lines = [heads, ["---", "---", *["--:"] * len(rows), "---"]]
    for entry in reversed(found.entries):
        values = [value(entry, row) for row in rows]
        lines.append([entry.sha[:9], entry.date, *values, escaped(entry.subject)])
    texts = [[escaped(t) for t in lines[0]], *lines[1:]]
    notes = "".join(f"\n> {escaped(note)}\n" for note in found.notes)
    return "\n".join(f"| {' | '.join(line)} |" for line in texts) + "\n" + notes


def shown(found: History) -> tuple[Row, ...]:
    """The rows of a table that people read: the means of the four HQ sets where there are any, else all."""
    four = tuple(row for row in found.rows if row[0] == paper.HQ4_MEAN)
    return four or found.rows


def value(entry: Entry, row: Row) -> str:
    """The value at a commit, with its interval where there is one."""
    point = entry.points.get(row)
    if point is None:
        return ""
    low, high = point.ends
    known = math.isfinite(low) and math.isfinite(high)
    return number(point.hq_sam, 1) + (f" [{number(low, 1)}, {number(high, 1)}]" if known else "")


def to_html(found: History) -> str:
    """Curves and a table as a page that needs no network."""
    from markupsafe import Markup

    from hqsam_pipelines.report.html import render

    groups: dict[str, list[Row]] = {}
    for row in found.rows:
        groups.setdefault(label(row, found.rows).removesuffix(f" {row[2]}"), []).append(row)
    charts = [(name, Markup(_chart(found, name, rows))) for name, rows in groups.items()]
    lines = [
        {
            "sha": entry.sha,
            "date": entry.date,
            "subject": entry.subject,
            "cells": [value(entry, row) for row in found.rows],
        }
        for entry in reversed(found.entries)
    ]
    context = {
        "title": f"{len(found.entries)} reports",
        "heads": [label(row, found.rows) for row in found.rows],
        "lines": lines,
        "charts": charts,
        "notes": found.notes,
    }
    return render("history.html.j2", ("page.js.j2", "history.js.j2"), context)


def _chart(found: History, name: str, rows: Sequence[Row]) -> str:
    from hqsam_pipelines.report.charts import Axes, Series, line_chart, span

    styles = ("hq", "sam", "truth", "extra", "plain")
    series = []
    for place, row in enumerate(rows):
        points = [(x, e.points[row]) for x, e in enumerate(found.entries, 1) if row in e.points]
        ends = [p.ends for _, p in points]
        ys = [p.hq_sam for _, p in points]
        low, high = [a for a, _ in ends], [b for _, b in ends]
        xs = [float(x) for x, _ in points]
        series.append(Series(row[2], styles[place % 5], xs, ys, low=low, high=high))
    heights = span([v for s in series for v in (*s.y, *s.low, *s.high)], 0.06)
    axes = Axes("report, oldest first", "HQ-SAM", (0.5, len(found.entries) + 0.5), heights)
    return line_chart(series, axes, f"{name}: HQ-SAM over the reports")
