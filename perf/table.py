"""The rows of a benchmark: what was measured, its value, and whether a promise about it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        what: what was measured, on which input, against which baseline.
        value: the number with its unit.
        target: the promise, empty for a number that is only told.
        met: whether it is kept; None without a target.
    """

    what: str
    value: str
    target: str = ""
    met: bool | None = None

    @classmethod
    def at_least(cls, what: str, value: float, target: float) -> Row:
        """A ratio that must not be below `target`; a target of 0 means none."""
        times = f"{value:.2f} x" if value < 10 else f"{value:.1f} x"
        return cls(what, times, f">= {target:g} x", value >= target) if target else cls(what, times)

    @classmethod
    def at_most(cls, what: str, value: float, target: float, unit: str) -> Row:
        """A quantity that must not be above `target`."""
        return cls(what, f"{value:.3g} {unit}", f"<= {target:g} {unit}", value <= target)

    @property
    def verdict(self) -> str:
        """`met`, `MISSED` or nothing."""
        return "" if self.met is None else "met" if self.met else "MISSED"


def render(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, so that it can be pasted into docs/benchmarks.md."""
    cells = [
        ("what", "value", "target", ""),
        *((r.what, r.value, r.target, r.verdict) for r in rows),
    ]
    widths = [max(len(row[k]) for row in cells) for k in range(4)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def finish(rows: Sequence[Row], json_file: Path | None, **detail: Any) -> int:
    """Prints the table of one script and writes its JSON; returns the exit status: 1 when a promise is missed.

    Args:
        rows: the table.
        json_file: where to; None: nowhere. The runner reads the key `rows` back.
        detail: whatever else is worth keeping in the JSON.
    """
    print(render(rows), flush=True)
    if json_file is not None:
        content = {"rows": [asdict(row) for row in rows], **detail}
        json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(any(row.met is False for row in rows))


def read_rows(json_file: Path) -> list[Row]:
    """The rows of a JSON file written by `finish`; none when a script keeps another format."""
    content = json.loads(json_file.read_text(encoding="utf-8")) if json_file.is_file() else None
    rows = content.get("rows") if isinstance(content, dict) else None
    known = Row.__dataclass_fields__.keys()
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and row.keys() == known for row in rows
    ):
        return []
    return [Row(**row) for row in rows]
