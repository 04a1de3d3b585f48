"""A comparison as Markdown to paste into a pull request or a note."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hqsam_base.safe_text import sanitize
from hqsam_pipelines.compare.answer import answer
from hqsam_pipelines.compare.cells import Names, cells, folded_line, several_systems, untested
from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.rows import Change
from hqsam_pipelines.compare.terminal import farthest

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>|~!&])")
_LINKED = re.compile(r"([@#])")  # forges look for mentions after the markup: no escape helps


def to_markdown(comparison: Comparison, *, every: bool = False, top: int | None = None) -> str:
    """The answer, the headline rows, and what is needed to judge them.

    Args:
        comparison: what to show.
        every: also all other rows, folded.
        top: only so many headline rows, those that are farthest from noise.
    """
    found = answer(comparison)
    parts = [f"**{escaped(found.sentence())}**"]
    parts += [f"> {escaped(text)}" for text in untested(comparison)]
    rows = farthest(found, top)
    if rows:
        parts.append(_table(rows, comparison))
    if len(rows) < len(found.moved):
        parts.append(f"{len(found.moved) - len(rows)} more headline rows without `--top`.")
    line = folded_line(comparison, found.folded)
    parts += [escaped(line)] if line else []
    own = {id(row) for row in found.rows}
    further = [c for c in comparison.changes if id(c) not in own]
    if every and further:
        summary = f"<summary>{len(further)} further rows</summary>"
        table = _table(further, comparison)
        parts.append(f"<details>{summary}\n\n{table}\n\n</details>")
    for side, revision in (("A", comparison.a), ("B", comparison.b)):
        parts.append(f"{side}: {escaped(f'{revision.label} {revision.subject}')}")
    if comparison.params:
        listed = "; ".join(f"{key}: {a} → {b}" for key, a, b in comparison.params)
        parts.append(f"params.yaml: {escaped(listed)}")
    parts.append(f"<sub>{escaped(comparison.method)}</sub>")
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Change], comparison: Comparison) -> str:
    names, system = Names(comparison.changes), several_systems(rows, comparison)
    heads = ["benchmark", *(["system"] if system else []), "metric", "A", "B", "B − A"]
    heads += ["95 % interval", "verdict"]
    lines = []
    for row in rows:
        text = cells(row)
        label = [comparison.system(row.system).label] if system else []
        values = [text[key] for key in ("metric", "a", "b", "difference", "interval", "verdict")]
        lines.append([names.whole(row), *label, *values])
    left = len(heads) - 5
    rule = ["---"] * left + ["--:"] * 4 + ["---"]
    return "\n".join([_line(heads), _line(rule, raw=True), *map(_line, lines)])


def _line(cells: Iterable[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(text if raw else escaped(text) for text in cells)} |"


def escaped(text: str) -> str:
    """Text from anywhere as text: no markup, no mention, no line break."""
    plain = _ACTIVE.sub(r"\\\1", sanitize(" ".join(text.split())))
    return _LINKED.sub(r"\1<!-- -->", plain)
