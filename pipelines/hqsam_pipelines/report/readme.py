"""The numbers of a README, written from the report's tables: nobody copies them by hand.

What lies between the two comments `BEGIN` and `END` is replaced.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from hqsam_base.atomic import write_text
from hqsam_base.errors import UserError
from hqsam_pipelines.report import paper

BEGIN = "<!-- numbers of reports/tables, written by `hqsam report readme`: do not edit -->"
END = "<!-- end of the numbers -->"


def block(tables: Path) -> str:
    """The text between the comments: the overview as Markdown, and the means over the four HQ sets in words.

    Args:
        tables: ``reports/tables``.

    Raises:
        UserError: there is no report, or its tables are not those that the report stage writes.
    """
    try:
        table = (tables / "overview.md").read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO((tables / "overview.csv").read_text("utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            "there is no report to take numbers from", file=tables, cure="run `hqsam repro`"
        ) from error
    try:
        if BEGIN in table or END in table:
            raise ValueError("a comment that marks the numbers")
        means = [row for row in rows if row["benchmark"] == paper.HQ4_MEAN]
        told = ", ".join(f"{r['metric']} {_one(r['sam'])} to {_one(r['hq_sam'])}" for r in means)
        behind = [
            f"{paper.title(row['benchmark'])} {row['metric']}"
            for row in rows
            if row["delta"] and float(row["delta"]) * (-1 if row["better"] == "lower" else 1) < 0
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the table is not one of the report's ({error!r})",
            file=tables / "overview.csv",
            cure="run `hqsam repro report`",
        ) from error
    lines = [f"Mean of the four HQ sets: {told}."] if told else []
    lines += [f"HQ-SAM's value is the lower one in: {', '.join(behind)}."] if behind else []
    return f"{table}\n{' '.join(lines)}\n"


def _one(text: str) -> str:
    return f"{float(text):.1f}" if text else "undefined"


def updated(readme: Path, tables: Path) -> tuple[str, bool]:
    """The README with the numbers of the report, and whether that is another text than it has.

    Raises:
        UserError: the file is not UTF-8, or does not hold both comments once, in order; there is no
            report.
    """
    try:
        text = readme.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the file is not UTF-8 ({error.reason} at byte {error.start})",
            file=readme,
            cure="save it as UTF-8",
        ) from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise UserError(
            "the place of the numbers is not marked",
            file=readme,
            cure=f"put these two lines around it:\n{BEGIN}\n{END}",
        )
    new = f"{before}{BEGIN}\n{block(tables)}{END}{after}"
    return new, new != text


def write(readme: Path, tables: Path) -> bool:
    """Update the README; returns whether it changed."""
    text, changed = updated(readme, tables)
    if changed:
        write_text(readme, text)
    return changed
