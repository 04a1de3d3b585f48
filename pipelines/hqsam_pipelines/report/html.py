"""Renders report.html: one file, no network, the same bytes for the same inputs."""

from __future__ import annotations

import base64
import collections
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from hqsam_metrics.base import Scale
from hqsam_metrics.verdicts import Verdict
from hqsam_pipelines.report import paper, sources
from hqsam_pipelines.report.charts import (
    Pair,
    Series,
    dumbbell_chart,
    legend,
)
from hqsam_pipelines.report.draw import webp_bytes
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.rows import Row
from hqsam_pipelines.report.tables import interval_text, number, signed, versus


@dataclass(frozen=True)
class Picture:
    """A picture of the page: uint8 [H, W, 3], alternative text, caption."""

    image: Any
    alt: str
    caption: str


class _Scripts:
    """The scripts of a page, and the policy that lets no other run and no request leave.

    Values are escaped where they are written; a browser holds to the policy even where that was
    forgotten.

    Args:
        text: JavaScript.
    """

    def __init__(self, text: str) -> None:
        from markupsafe import Markup

        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
        rules = (
            "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
            f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        )
        self.element = Markup(f"<script>{text}</script>")
        self.policy = Markup(f'<meta http-equiv="Content-Security-Policy" content="{rules}">')


def render(name: str, scripts: Sequence[str], context: Mapping[str, Any]) -> str:
    """Renders one of the package's templates; undefined names are errors, values are escaped.

    Args:
        name: of the page.
        scripts: names of its scripts, in order.
        context: what the page shows.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hqsam_pipelines.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    text = "".join(f"\n{environment.get_template(script).render()}" for script in scripts)
    return environment.get_template(name).render(**context, scripts=_Scripts(text))


def embed(picture: Picture, shown: int | None = None) -> dict[str, Any]:
    """A picture as a data URI with its shown size (half its pixels unless `shown` gives the width)."""
    height, width = picture.image.shape[:2]
    data = base64.b64encode(webp_bytes(picture.image)).decode("ascii")
    wide = width if shown is None else shown
    return {
        "src": f"data:image/webp;base64,{data}",
        "alt": picture.alt,
        "caption": picture.caption,
        "width": wide,
        "height": round(height * wide / width),
    }


def notices(run: Run) -> list[str]:
    """What the reader must know before the first number."""
    texts = []
    model = run.models[0]
    backbone = run.backbone(model)
    if paper.reference_backbone(backbone) != backbone:
        texts.append(
            f"The model “{model}” is a miniature for checking the pipeline. It was pretrained on "
            f"a small set of drawn "
            "scenes with deliberately coarse masks; its numbers prove nothing about SAM or HQ-SAM."
        )
    if sources.embedded(run):
        texts.append(
            "The data are the embedded sample: procedurally drawn pictures in the published "
            "archive layouts of the "
            "real sets, whose names they carry. They are not these sets."
        )
    if not run.params.get("sources"):
        texts.append(
            "Nothing was trained: each model is evaluated as its checkpoint holds it. Which images "
            "it was trained on was not checked against the evaluation sets."
        )
    elif run.params.get("overlap", {}).get("unresolved") == "keep":
        texts.append(
            "Overlap between training and evaluation images was found and kept "
            "(overlap.unresolved: keep)."
        )
    if run.absent:
        pairs = ", ".join(f"{paper.title(b)} ({m})" for b, m in run.absent)
        texts.append(f"This report is partial. Without a result, as a stage failed: {pairs}.")
    for name, text in sources.missing(run).items():
        texts.append(f"Not evaluated, or not with every prompt: {name} ({text}).")
    texts += [
        f"{run.system(system).label} cannot take the prompts {', '.join(sets)} of "
        f"{paper.title(benchmark)}: it has no row there."
        for benchmark in run.benchmarks
        for system, sets in sources.unsupported(run, benchmark).items()
    ]
    unscored = [r for r in run.results if r.n_scored != r.n_expected]
    if unscored:
        names = ", ".join(sorted({f"{r.benchmark}/{r.prompt_set}" for r in unscored}))
        texts.append(f"Not every expected unit was scored: {names}.")
    return texts


def cards(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The large numbers at the top."""
    found = []
    for row in rows:
        if row.benchmark == paper.HQ4_MEAN:
            found.append(
                {
                    "what": f"{row.label}, mean of the four HQ sets",
                    "value": number(row.hq, 1),
                    "unit": f"HQ-SAM, {signed(row.delta)} {row.scale.unit}",
                    "more": f"SAM {number(row.sam, 1)} . 95 % interval of the gain "
                    f"{interval_text(row.interval)}",
                }
            )
    seen = [row for row in rows if row.benchmark != paper.HQ4_MEAN]
    count = collections.Counter(row.judged.verdict for row in seen)
    names = {"worse": "behind", "cannot move": "equal"}
    rest = [v for v in get_args(Verdict) if v != "better" and count[v]]
    found.append(
        {
            "what": "HQ-SAM against SAM, beyond noise",
            "value": f"{count['better']} ahead",
            "unit": ", ".join(f"{count[v]} {names.get(v, v)}" for v in rest),
            "more": f"the {len(seen)} rows of single benchmarks below",
        }
    )
    return found


def overview(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Lines of the table at a glance."""
    lines = []
    before = None
    for row in rows:
        group = (row.benchmark, row.prompt_set)
        known = row.interval or row.stand_in
        own = paper.HQ4[0] if row.benchmark == paper.HQ4_MEAN else row.benchmark
        lines.append(
            {
                "first": group != before,
                "benchmark": paper.title(row.benchmark),
                "prompt": row.prompt_set,
                "metric": row.label,
                "anchor": f"{own}-{row.prompt_set}",
                "sam": number(row.sam, 1),
                "hq": number(row.hq, 1),
                "best": "hq" if row.gain > 0 else "sam" if row.gain < 0 else "",
                "delta": signed(row.delta),
                "delta_tone": row.judged.tone,
                "interval": interval_text(row.interval),
                "instance": signed(row.stand_in.mean) if row.stand_in else "",
                "instance_interval": interval_text(row.stand_in) if row.stand_in else "",
                "units": f"{known.n} in {known.clusters}" if known else "",
                "paper_delta": signed(row.paper_delta),
            }
        )
        before = group
    return lines


def overview_chart(rows: Sequence[Row]) -> str:
    """Dumbbells with intervals: the rows of the table at a glance; one chart for each scale."""
    shown = [r for r in rows if r.sam is not None and r.hq is not None]
    sets = {(r.benchmark, r.prompt_set) for r in shown}
    several = {name for name, _ in sets if sum(other == name for other, _ in sets) > 1}
    charts: dict[Scale, list[Pair]] = {}
    for row in shown:
        prompt = f", {row.prompt_set.replace('_', ' ')}" if row.benchmark in several else ""
        charts.setdefault(row.scale, []).append(
            Pair(
                f"{paper.title(row.benchmark)}{prompt} . {row.label}",
                row.sam or 0.0,
                row.hq or 0.0,
                row.judged.tone,
                row.gain >= 0,
                math.nan if row.interval is None else row.interval.low,
                math.nan if row.interval is None else row.interval.high,
                row.judged.verdict,
            )
        )
    label = "SAM and HQ-SAM on every benchmark, and the difference with its interval"
    return "".join(
        dumbbell_chart(pairs, scale.label(label), scale.limits, unit=scale.unit)
        for scale, pairs in charts.items()
    )


def table_context(spec: paper.TableSpec, rows: Sequence[Row], run: Run) -> dict[str, Any]:
    """One table in the paper's layout: systems down, benchmarks and metrics across."""
    groups: list[dict[str, Any]] = []
    for row in rows:
        name = paper.title(row.benchmark)
        if any(b.prompt_set != spec.blocks[0].prompt_set for b in spec.blocks):
            name += f", {row.prompt_set.replace('_', ' ')}"
        if groups and groups[-1]["name"] == name:
            groups[-1]["span"] += 1
        else:
            groups.append({"name": name, "span": 1})
    lines = _ours(rows, run)
    if any(r.paper_sam is not None for r in rows):
        backbone = rows[0].paper_backbone
        lines += [
            {
                "name": f"Paper, {backbone}: SAM",
                "style": "muted split",
                "cells": [_cell(number(r.paper_sam, 1)) for r in rows],
            },
            {
                "name": f"Paper, {backbone}: HQ-SAM",
                "style": "muted",
                "cells": [_cell(number(r.paper_hq, 1)) for r in rows],
            },
            {"name": "Δ", "style": "muted", "cells": [_cell(signed(r.paper_delta)) for r in rows]},
        ]
    return {
        "title": spec.title,
        "source": spec.source,
        "comparable": " / ".join(dict.fromkeys(r.comparable for r in rows if r.comparable)),
        "groups": groups,
        "columns": [row.label for row in rows],
        "lines": lines,
    }


def _cell(text: str, tone: str = "", more: str = "") -> dict[str, str]:
    return {"text": text, "tone": tone, "more": more}


def _ours(rows: Sequence[Row], run: Run) -> list[dict[str, Any]]:
    output, baseline = run.system(rows[0].hq_system), run.system(rows[0].baseline)
    # without plus signs: ten columns side by side have no room for them
    intervals = [
        "" if r.interval is None else interval_text(r.interval).replace("+", "") for r in rows
    ]
    lines = [
        {"name": baseline.label, "style": "", "cells": [_cell(number(r.sam, 1)) for r in rows]},
        {
            "name": f"{output.owner} ({output.label})",
            "style": "ours",
            "cells": [_cell(number(r.hq, 1)) for r in rows],
        },
        {
            "name": "Δ, 95 % interval",
            "style": "",
            "cells": [
                _cell(signed(r.delta), r.judged.tone, more)
                for r, more in zip(rows, intervals, strict=True)
            ],
        },
    ]
    for other in (
        s
        for s in run.systems
        if s not in (output, baseline) and any(s.name in r.values for r in rows)
    ):
        cells = [_cell(number(r.values.get(other.name), 1)) for r in rows]
        name = f"other output ({other.label})" if other.owner == output.owner else other.label
        lines.append({"name": name, "style": "muted", "cells": cells})
    return lines


def other_context(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A plain table of what none of the paper's tables shows."""
    return [_plain_table("Further benchmarks and prompts", rows)] if rows else []


def systems_context(rows: Sequence[Row], run: Run) -> list[dict[str, Any]]:
    """A plain table of the systems beside SAM and HQ-SAM, each against its own baseline."""
    if not rows:
        return []
    lines = [
        [
            paper.title(r.benchmark),
            r.prompt_set,
            r.label,
            run.system(r.hq_system).label,
            number(r.hq, 1),
            versus(r, run),
            number(r.sam, 1) if versus(r, run) else "",
            signed(r.delta),
            interval_text(r.interval),
        ]
        for r in rows
    ]
    names = [
        "Benchmark",
        "Prompt",
        "Metric",
        "System",
        "Value",
        "Against",
        "Its value",
        "Δ",
        "95 % interval",
    ]
    return [{"title": "Other systems of this run", "columns": names, "lines": lines}]


def models_context(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A plain table of the models that the rest of the page does not show."""
    if not rows:
        return []
    table = _plain_table("Other models of this run", rows)
    lines = [[row.model, *line] for row, line in zip(rows, table["lines"], strict=True)]
    return [{**table, "columns": ["Model", *table["columns"]], "lines": lines}]


def _plain_table(title: str, rows: Sequence[Row]) -> dict[str, Any]:
    lines = [
        [
            paper.title(r.benchmark),
            r.prompt_set,
            r.label,
            number(r.sam, 1),
            number(r.hq, 1),
            signed(r.delta),
            interval_text(r.interval),
        ]
        for r in rows
    ]
    columns = ["Benchmark", "Prompt", "Metric", "SAM", "HQ-SAM", "Δ", "95 % interval"]
    return {"title": title, "columns": columns, "lines": lines}


def overlap_context(run: Run) -> dict[str, Any]:
    """The overlap gate's findings with a matrix of evaluation sets and kinds, and a choice of its pictures."""
    found = sources.overlap(run)
    if not found:
        return {}
    kinds = sorted(found["counts"])
    order = {name: place for place, name in enumerate(run.params.get("benchmarks", {}))}
    lines = [
        (paper.title(name), [counts.get(kind) or "" for kind in kinds])
        for name, counts in sorted(
            found["by_benchmark"].items(),
            key=lambda item: (order.get(item[0], len(order)), item[0]),
        )
    ]
    # Eight pictures, as evenly of every kind of overlap (the text before the colon) as there are.
    by_kind: dict[str, list[tuple[Any, str]]] = {}
    for path, text in found["gallery"]:
        by_kind.setdefault(text.partition(":")[0], []).append((path, text))
    turns = [row[turn] for turn in range(8) for row in by_kind.values() if turn < len(row)]
    return {
        **found,
        "matrix": {"columns": kinds, "lines": lines},
        "gallery": sorted(turns[:8], key=found["gallery"].index),
    }


def params_text(run: Run) -> str:
    """The parameters as YAML, sorted."""
    return yaml.safe_dump(_plain(run.params), sort_keys=True, allow_unicode=True, width=110)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def overview_legend() -> str:
    """Colour keys of the overview chart."""
    return legend([Series("SAM", "sam", [], []), Series("HQ-SAM", "hq", [], [])])
