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
        what: what was measured, on which input; no measured value, since the guard knows a ratio by it.
        value: the number with its unit.
        target: the promise, empty for a number that is only told.
        met: whether it is kept; None without a target.
        peer: another program and what it took, in the same run.
        before: what the earlier revision took, in the same run.
        now: what this checkout took, where the value is a ratio.
        ratio: how many times as fast as peer or revision; None where the value is none.
    """

    what: str
    value: str
    target: str = ""
    met: bool | None = None
    peer: str = ""
    before: str = ""
    now: str = ""
    ratio: float | None = None

    @classmethod
    def at_least(
        cls,
        what: str,
        value: float,
        target: float,
        *,
        peer: str = "",
        before: str = "",
        now: str = "",
    ) -> Row:
        """A ratio that must not be below `target`; a target of 0 means none."""
        times = f"{value:.2f} x" if value < 10 else f"{value:.1f} x"
        promise = (f">= {target:g} x", value >= target) if target else ("", None)
        return cls(what, times, *promise, peer, before, now, round(value, 4))

    @classmethod
    def at_most(
        cls, what: str, value: float, target: float, unit: str, *, peer: str = "", before: str = ""
    ) -> Row:
        """A quantity that must not be above `target`."""
        told, promise = f"{value:.3g} {unit}".strip(), f"<= {target:g} {unit}".strip()
        return cls(what, told, promise, value <= target, peer, before)

    @property
    def verdict(self) -> str:
        """`met`, `MISSED` or nothing."""
        return "" if self.met is None else "met" if self.met else "MISSED"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], *, aligned: bool = False) -> str:
    """A Markdown table; columns of one width are for the terminal, in a file they make every line differ."""
    cells = [head, *lines]
    widths = [max(len(line[k]) if aligned else 3 for line in cells) for k in range(len(head))]
    rows = [
        "| "
        + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])


def render(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table for the terminal: what they are compared with in brackets."""
    lines = []
    for row in rows:
        sides = {"": row.peer, "before": row.before, "now": row.now}
        told = ", ".join(f"{name} {text}".strip() for name, text in sides.items() if text)
        what = f"{row.what} ({told})" if told else row.what
        lines.append((what, row.value, row.target, row.verdict))
    return markdown(("what", "value", "target", ""), lines, aligned=True)


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
