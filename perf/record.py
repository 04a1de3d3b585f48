"""What was measured last, `perf/measured.json`: the source of docs/benchmarks.md and of the guard's ratios.

The page is `perf/benchmarks.md.j2` with one table an area. Nothing here is edited by hand:

    python -m perf metrics/jf --full --write   # measure, keep the rows, write the page
    python -m perf --write-docs                # write the page again
    python -m perf --guard                     # measure small sizes; fail below 0.8 of the kept ratios
    python -m perf --guard --write             # keep the guard's ratios
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from perf.revisions import BEFORE, ROOT
from perf.table import Row, markdown

DATA = Path(__file__).with_name("measured.json")
TEMPLATE = Path(__file__).with_name("benchmarks.md.j2")
PAGE = ROOT / "docs" / "benchmarks.md"
KEPT = 0.8
"""The share of a kept ratio below which the guard fails: less is noise."""
HEAD = ("what", "peer", f"before ({BEFORE})", "now", "value", "limit", "", "measured by")


def load() -> dict[str, Any]:
    """`{"benchmarks": {name: {"revision", "processor", "rows"}}, "guard": {what: ratio}}`."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def save(record: Mapping[str, Any]) -> None:
    """Writes the file, names in order."""
    DATA.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def keep(record: dict[str, Any], name: str, rows: Iterable[Row], **source: str) -> None:
    """Puts the rows of one benchmark in the place of its last ones; `source` says where they come from."""
    told = [{k: v for k, v in asdict(row).items() if v not in ("", None)} for row in rows]
    record["benchmarks"][name] = {**source, "rows": told}


def kept_rows(record: Mapping[str, Any], name: str) -> list[Row]:
    """The rows of one benchmark."""
    return [Row(**row) for row in record["benchmarks"][name]["rows"]]


def page(record: Mapping[str, Any]) -> str:
    """The text of docs/benchmarks.md."""
    tables: dict[str, str] = {}
    names = sorted(record["benchmarks"])
    for area in dict.fromkeys(name.partition("/")[0] for name in names):
        tables[area] = markdown(
            HEAD,
            [
                (
                    row.what,
                    row.peer,
                    row.before,
                    row.now,
                    row.value,
                    row.target,
                    row.verdict,
                    f"`{name}`",
                )
                for name in names
                if name.startswith(f"{area}/")
                for row in kept_rows(record, name)
            ],
        )
    missed = [
        f"- {row.what}: {row.value} ({row.target}), `{name}`"
        for name in names
        for row in kept_rows(record, name)
        if row.met is False
    ]
    sources = [
        (f"`{name}`", one.get("revision", ""), one.get("processor", ""))
        for name, one in sorted(record["benchmarks"].items())
    ]
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        tables=tables,
        missed="\n".join(missed) or "None.",
        sources=markdown(("benchmark", "revision", "processor"), sources),
        before=BEFORE,
        guard=markdown(
            ("ratio", "kept"), [(what, f"{ratio:.2f}") for what, ratio in record["guard"].items()]
        ),
    )


def write_page() -> None:
    """Writes docs/benchmarks.md anew."""
    PAGE.write_text(page(load()), encoding="utf-8")


def guarded(kept: Mapping[str, float], found: Mapping[str, float]) -> list[Row]:
    """One row for each kept ratio and each new one; met from 0.8 of what was kept on."""
    rows = []
    for what in sorted({*kept, *found}):
        if what not in kept:
            told = (f"{found[what]:.2f} x", "kept by --guard --write")
        elif what not in found:
            told = ("not measured: is the extra `bench` installed?", f"{kept[what]:.2f} x")
        else:
            target = KEPT * kept[what]
            rows.append(Row.at_least(what, found[what], target, before=f"{kept[what]:.2f} x"))
            continue
        rows.append(Row(what, *told, met=False))
    return rows
