"""Data docs: what the data are and whether they are sound, as one HTML file without scripts or outside references."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from hqsam_datasets.quality.tables import Tables

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;font-size:.87rem}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}
th{border-bottom:2px solid #999}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.ok{color:#0a6b2d}.bad{color:#b00020;font-weight:600}.keys{font-family:monospace;font-size:.8rem;overflow-wrap:anywhere}
svg{display:block}.wide{overflow-x:auto}
"""


def render(tables: Tables, results: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """The page as text; the same input gives the same bytes."""
    state = (
        '<p class="ok">All expectations hold.</p>'
        if summary["success"]
        else f'<p class="bad">{summary["n_failed"]} of {summary["n_expectations"]} expectations fail.</p>'
    )
    counts = (
        f"<p>{summary['n_samples']} training images, {summary['n_images']} evaluation images, "
        f"{summary['n_instances']} instances, {summary['n_prompts']} prompts; "
        f"{summary['n_expectations']} expectations.</p>"
    )
    failed = [row for row in results if not row["success"]]
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>Data quality</title><style>{_STYLE}</style></head><body><h1>Data quality</h1>",
        state, counts,
        *([f"<h2>What fails</h2>{_expectations(failed)}"] if failed else []),
        f"<h2>Training sources</h2>{_sources(tables)}",
        f"<h2>Evaluation sets</h2>{_benchmarks(tables)}",
        *([f"<h2>What could not be had</h2>{_missing(tables)}"] if tables.missing else []),
        *(
            f"<h2>Expectations on {name}</h2>" + _expectations([row for row in results if row["table"] == name])
            for name in tables.frames()
        ),
        "</body></html>\n",
    ]  # fmt: skip
    return "\n".join(parts)


def _sources(tables: Tables) -> str:
    rows = []
    for name, group in tables.samples.groupby("set", sort=True):
        row = tables.sets[tables.sets["set"] == name].iloc[0]
        rows.append(
            [
                _text(name), _number(len(group)), _number(row["n_rejects"]), _sizes(group),
                _spread(group["fg_fraction"]) + _bars(group["fg_fraction"]), _spread(group["soft_fraction"]),
                _tally(group["mask_encoding"]), _tally(group["image_mode"]),
            ]
        )  # fmt: skip
    head = (
        "source", "images", "rejects", "short side (px)", "foreground share", "soft share", "mask encodings",
        "image modes",
    )  # fmt: skip
    return _table(head, rows, numeric={1, 2})


def _benchmarks(tables: Tables) -> str:
    rows = []
    for name, group in tables.images.groupby("set", sort=True):
        rows.append(
            [
                _text(name), _number(len(group)), _number(group["n_instances"].sum()),
                _number(group["n_prompts"].sum()), _number((group["n_prompts"] == 0).sum()), _sizes(group),
            ]
        )  # fmt: skip
    head = ("benchmark", "images", "instances", "prompts", "images without a prompt", "short side (px)")
    return _table(head, rows, numeric={1, 2, 3, 4})


def _missing(tables: Tables) -> str:
    have = set(tables.images["set"])
    rows = [
        [_text(name), "its images are checked" if name in have else "left out", _text(text)]
        for name, text in sorted(tables.missing.items())
    ]
    return _table(("benchmark", "", "missing, and what a person can do"), rows)


def _expectations(results: list[dict[str, Any]]) -> str:
    rows = []
    for row in results:
        status = '<span class="ok">holds</span>' if row["success"] else '<span class="bad">fails</span>'
        limits = ", ".join(f"{k}={v}" for k, v in row["arguments"].items() if not k.startswith("column"))
        found = "" if row["success"] else f"{row['unexpected_count']} of {row['element_count']}"
        where = " ".join([*row["sets"], *(f"[{key}]" for key in row["keys"])])
        rows.append(
            [
                status, _text(row["title"]), _text(row["column"]), _text(limits), _text(found),
                f'<div class="keys">{_text(where)}</div>',
            ]
        )  # fmt: skip
    return _table(("", "expectation", "column", "limits", "deviating", "where"), rows)


def _table(head: tuple[str, ...], rows: list[list[str]], numeric: set[int] | None = None) -> str:
    def cell(tag: str, position: int, content: str) -> str:
        return f"<{tag}{' class=n' if position in (numeric or set()) else ''}>{content}</{tag}>"

    lines = ["<tr>" + "".join(cell("th", i, _text(name)) for i, name in enumerate(head)) + "</tr>"]
    lines += ["<tr>" + "".join(cell("td", i, content) for i, content in enumerate(row)) + "</tr>" for row in rows]
    return '<div class="wide"><table>' + "\n".join(lines) + "</table></div>"


def _sizes(group: pd.DataFrame) -> str:
    side = group["short_side"]
    return f"{int(side.min())} &ndash; {int(side.max())}, median {int(side.median())}"


def _spread(values: pd.Series) -> str:
    return f"{values.min():.3f} &ndash; {values.max():.3f}, median {values.median():.3f}"


def _tally(values: pd.Series) -> str:
    counts = values.value_counts()
    pairs = sorted(counts.items(), key=lambda pair: (-int(pair[1]), str(pair[0])))
    return _text(", ".join(f"{name}: {count}" for name, count in pairs))


def _bars(values: pd.Series) -> str:
    """A histogram of shares 0..1 in twenty bars."""
    counts, _ = np.histogram(values.dropna().to_numpy(np.float64), bins=20, range=(0, 1))
    top = max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{6 * i}" y="{24 - round(24 * int(n) / top)}" width="5" height="{round(24 * int(n) / top)}"/>'
        for i, n in enumerate(counts)
    )
    return f'<svg width="120" height="24" fill="#4477aa" role="img" aria-label="histogram from 0 to 1">{bars}</svg>'


def _number(value: Any) -> str:
    return f"{int(value)}"


def _text(value: Any) -> str:
    return html.escape(str(value))
