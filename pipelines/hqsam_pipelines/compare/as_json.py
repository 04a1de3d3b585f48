"""A comparison as JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hqsam_pipelines.compare.answer import answer
from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.rows import Change

if TYPE_CHECKING:
    from hqsam.systems import System

VERSION = 2


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values; NaN and unknown become null."""
    found = answer(comparison)
    own = {id(row) for row in found.rows}
    return {
        "version": VERSION,
        "answer": {
            "outcome": found.outcome,
            "sentence": found.sentence(),
            "headline": len(found.rows),
            "counts": found.counts(),
        },
        "a": _revision(comparison, "a"),
        "b": _revision(comparison, "b"),
        "method": comparison.method,
        "rows": [
            _row(change, comparison.system(change.system), own) for change in comparison.changes
        ],
        "missing": list(comparison.missing),
        "notes": list(comparison.notes),
        "commits": list(comparison.commits),
        "params": [dict(zip(("key", "a", "b"), entry, strict=True)) for entry in comparison.params],
        "outputs": list(comparison.outputs),
        "instances": [vars(instance) for instance in comparison.instances],
    }


def _revision(comparison: Comparison, side: str) -> dict[str, str]:
    revision = getattr(comparison, side)
    return {"name": revision.name, "commit": revision.sha, "subject": revision.subject}


def _row(change: Change, system: System, own: set[int]) -> dict[str, Any]:
    interval = change.interval
    return {
        "benchmark": change.benchmark,
        "model": change.model,
        "prompt_set": change.prompt_set,
        "system": change.system,
        "label": system.label,
        "versus": system.versus,
        "metric": change.metric,
        "headline": id(change) in own,
        "unit": change.scale.unit,
        "better": "lower" if change.scale.lower_is_better else "higher",
        "a": change.a,
        "b": change.b,
        "difference": change.difference,
        "interval": None
        if interval is None or math.isnan(interval.low)
        else [interval.low, interval.high],
        "p": None if interval is None or math.isnan(interval.p) else interval.p,
        "p_family": None if math.isnan(change.p_family) else change.p_family,
        "n": None if interval is None else interval.n,
        "clusters": None if interval is None else interval.clusters,
        "verdict": change.verdict,
        "note": change.note,
        "protocol": [dict(zip(("key", "a", "b"), entry, strict=True)) for entry in change.protocol],
    }
