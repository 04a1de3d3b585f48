"""What terminal, Markdown and page show of one row, in the same words."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hqsam_pipelines.compare.answer import COUNTED
from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.rows import Change, Instance
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.tables import interval_text, number, signed

_NOTES = 3  # protocols that are told in full


class Names:
    """How the benchmarks of a comparison are called: with prompt set and model only where there are several.

    Args:
        rows: all of its rows.
    """

    def __init__(self, rows: Iterable[Change]) -> None:
        self._models: set[str] = set()
        self._prompts: dict[str, set[str]] = {}
        for row in rows:
            self._models.add(row.model)
            self._prompts.setdefault(row.benchmark, set()).add(row.prompt_set)

    def benchmark(self, row: Change | Instance) -> str:
        """The benchmark's title, with the model where there are several."""
        return paper.title(row.benchmark) + (f" ({row.model})" if len(self._models) > 1 else "")

    def whole(self, row: Change) -> str:
        """The benchmark's title, with prompt set and model where there are several."""
        several = len(self._prompts[row.benchmark]) > 1
        prompt = f", {row.prompt_set.replace('_', ' ')}" if several else ""
        return self.benchmark(row) + prompt


def cells(row: Change, digits: int = 1) -> dict[str, str]:
    """Metric, both values, difference, interval, p, images and verdict of a row as text; empty where there is none."""
    interval = row.interval
    known = interval is not None and not interval.too_few and math.isfinite(interval.low)
    return {
        "metric": row.scale.label(row.metric),
        "a": number(row.a, digits),
        "b": number(row.b, digits),
        "difference": signed(row.difference, digits),
        "interval": interval_text(interval, digits) if known else "",
        "p": p_text(row.p_family),
        "units": "" if interval is None else f"{interval.n} in {interval.clusters}",
        "verdict": row.verdict,
    }


def p_text(value: float) -> str:
    """A p-value with three digits."""
    if math.isnan(value):
        return ""
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def folded_line(comparison: Comparison, rows: Iterable[Change]) -> str:
    """The rows that did not move, and those that only rounding moved, named in one line; empty without any."""
    named: dict[str, dict[str, list[str]]] = {}
    naming = Names(comparison.changes)
    for row in rows:
        names = named.setdefault(COUNTED[row.verdict], {})
        names.setdefault(naming.whole(row), []).append(row.metric)
    return "; ".join(
        f"{sum(map(len, names.values()))} {what}: "
        + "; ".join(f"{name} {', '.join(metrics)}" for name, metrics in names.items())
        for what, names in named.items()
    )


def untested(comparison: Comparison) -> list[str]:
    """What a reader must know before the numbers: rows that cannot be compared, what has no intervals, and why."""
    refused = [c for c in comparison.changes if c.verdict == "not comparable"]
    notes = list(dict.fromkeys(c.note for c in refused))
    if len(notes) > _NOTES:
        keys = dict.fromkeys(key for c in refused for key, _, _ in c.protocol)
        notes = [f"other protocol: {', '.join(keys)} (--json has the values)"]
    return [
        *(f"not comparable: {note}" for note in notes),
        *(f"missing: {text}" for text in comparison.missing),
        *comparison.notes,
    ]


def several_systems(rows: Iterable[Change], comparison: Comparison) -> bool:
    """Whether rows are of more than the outputs of one owner, so that each must name its system."""
    return len({comparison.system(row.system).owner for row in rows}) > 1
