"""Data docs: what the data are and whether they are sound, as one HTML file without scripts or outside references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup  # comes with Jinja

if TYPE_CHECKING:
    import pandas as pd

    from hqsam_datasets.quality.tables import Tables


def render(tables: Tables, results: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """Render the page; the same input gives the same bytes."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hqsam_datasets.quality"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    rows = []
    for row in results:
        limits = (
            f"{key}={value}"
            for key, value in row["arguments"].items()
            if not key.startswith("column")
        )
        found = "" if row["success"] else f"{row['unexpected_count']} of {row['element_count']}"
        where = " ".join([*row["sets"], *(f"[{key}]" for key in row["keys"])])
        rows.append(row | {"limits": ", ".join(limits), "found": found, "where": where})
    checked = [(name, [row for row in rows if row["table"] == name]) for name in tables.frames()]
    have = set(tables.images["set"])
    missing = [
        [name, "its images are checked" if name in have else "left out", text]
        for name, text in sorted(tables.missing.items())
    ]
    benchmarks = []
    for name, group in tables.images.groupby("set", sort=True):
        prompts = group["n_prompts"]
        counts = (len(group), group["n_instances"].sum(), prompts.sum(), (prompts == 0).sum())
        benchmarks.append([name, *map(int, counts), _sizes(group)])
    return environment.get_template("data_docs.html.j2").render(
        summary=summary,
        failed=[row for row in rows if not row["success"]],
        sources=_sources(tables),
        benchmarks=benchmarks,
        missing=missing,
        checked=checked,
    )


def _sources(tables: Tables) -> list[list[Any]]:
    rows = []
    for name, group in tables.samples.groupby("set", sort=True):
        row = tables.sets[tables.sets["set"] == name].iloc[0]
        rows.append(
            [
                name,
                len(group),
                int(row["n_rejects"]),
                _sizes(group),
                _spread(group["fg_fraction"]) + _bars(group["fg_fraction"]),
                _spread(group["soft_fraction"]),
                _tally(group["mask_encoding"]),
                _tally(group["image_mode"]),
            ]
        )
    return rows


def _sizes(group: pd.DataFrame) -> Markup:
    side = group["short_side"]
    return Markup(f"{int(side.min())} &ndash; {int(side.max())}, median {int(side.median())}")


def _spread(values: pd.Series) -> Markup:
    return Markup(f"{values.min():.3f} &ndash; {values.max():.3f}, median {values.median():.3f}")


def _tally(values: pd.Series) -> str:
    counts = values.value_counts()
    pairs = sorted(counts.items(), key=lambda pair: (-int(pair[1]), str(pair[0])))
    return ", ".join(f"{name}: {count}" for name, count in pairs)


def _bars(values: pd.Series) -> Markup:
    """Draw a histogram of shares 0..1 in twenty bars."""
    counts, _ = np.histogram(values.dropna().to_numpy(np.float64), bins=20, range=(0, 1))
    top = max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{6 * i}" y="{24 - round(24 * int(n) / top)}" width="5" '
        f'height="{round(24 * int(n) / top)}"/>'
        for i, n in enumerate(counts)
    )
    label = 'role="img" aria-label="histogram from 0 to 1"'
    return Markup(f'<svg width="120" height="24" fill="#4477aa" {label}>{bars}</svg>')
