"""A comparison as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hqsam_metrics.base import Scale
from hqsam_pipelines.compare.answer import answer
from hqsam_pipelines.compare.cells import Names, cells, folded_line, several_systems, untested
from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.rows import Change
from hqsam_pipelines.report.tables import number, signed

_TONES = {"better": "up", "worse": "down"}
_PANELS = ("Prompt", "A", "B", "Ground truth", "Errors of A", "Errors of B")


def to_html(comparison: Comparison) -> str:
    """The comparison as a page that needs no network."""
    from markupsafe import Markup

    from hqsam_pipelines.compare.gallery import pictures
    from hqsam_pipelines.report.html import embed, render

    found, drawn = answer(comparison), pictures(comparison)
    own = {id(row) for row in found.rows}
    names = Names(comparison.changes)
    instances = [
        {
            "benchmark": names.benchmark(instance),
            "prompt": instance.prompt_set,
            "system": comparison.system(instance.system).label,
            "key": instance.key,
            "unit": instance.unit,
            "a": number(instance.a, 1),
            "b": number(instance.b, 1),
            "difference": signed(instance.b - instance.a),
            "tone": "up" if instance.gain > 0 else "down",
        }
        for instance in comparison.instances
    ]
    context = {
        "title": f"{comparison.a.label} → {comparison.b.label}",
        "a": comparison.a,
        "b": comparison.b,
        "method": comparison.method,
        "answer": found.sentence(),
        "tone": {"better": "up", "worse": "down"}.get(found.outcome, "flat"),
        "chart": Markup(_chart(found.moved, names)),
        "systems": several_systems(found.moved, comparison),
        "main": [_row(c, comparison, names) for c in found.moved],
        "folded": folded_line(comparison, found.folded),
        "rest": [_row(c, comparison, names) for c in comparison.changes if id(c) not in own],
        "notes": (*untested(comparison), *drawn[1]),
        "panels": _PANELS,
        "pictures": [embed(picture) for picture in drawn[0]],
        "commits": comparison.commits,
        "params": comparison.params,
        "outputs": comparison.outputs,
        "instances": instances,
    }
    return render("compare.html.j2", ("page.js.j2",), context)


def _chart(rows: Sequence[Change], names: Names) -> str:
    from hqsam_pipelines.report.charts import interval_chart

    charts: dict[Scale, list[tuple[str, float, float, float, str]]] = {}
    for row in rows:
        if row.interval is not None and not math.isnan(row.interval.low):
            text = f"{names.whole(row)} . {row.scale.label(row.metric)}"
            ends = row.interval.low, row.interval.mean, row.interval.high
            line = (text, *ends, _TONES.get(row.verdict, "flat"))
            charts.setdefault(row.scale, []).append(line)
    return "".join(
        interval_chart(lines, "Differences with 95 % intervals", f"B minus A, {scale.unit}")
        for scale, lines in charts.items()
    )


def _row(row: Change, comparison: Comparison, names: Names) -> dict[str, Any]:
    return {
        "benchmark": names.benchmark(row),
        "prompt": row.prompt_set,
        "system": comparison.system(row.system).label,
        "tone": _TONES.get(row.verdict, "flat"),
        **cells(row, 2),
    }
