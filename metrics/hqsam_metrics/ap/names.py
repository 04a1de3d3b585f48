"""Names of AP and AR values, as the evaluators and the reports write them."""

from __future__ import annotations

import numpy as np

from hqsam_metrics.ap.accumulate import Tables
from hqsam_metrics.ap.instances import Federation

Metrics = dict[str, float | None]


def coco_metrics(tables: Tables, suffix: str = "") -> Metrics:
    """Returns COCO's twelve numbers: AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl.

    Args:
        tables: of one measure.
        suffix: put after `AP` and `AR`: `_B` for boundary, `_B_strict`.
    """
    ap, ar = f"AP{suffix}", f"AR{suffix}"
    out = _ap(tables, ap)
    out |= {f"{ar}{limit}": tables.ar(limit=limit) for limit in tables.limits}
    return out | {f"{ar}{size}": tables.ar(bin_name=size) for size in "sml"}


def _ap(tables: Tables, ap: str) -> Metrics:
    out: Metrics = {ap: tables.ap(), f"{ap}50": tables.ap(iou=0.5), f"{ap}75": tables.ap(iou=0.75)}
    return out | {f"{ap}{size}": tables.ap(bin_name=size) for size in "sml"}


def lvis_metrics(tables: Tables, federation: Federation, limit: int, suffix: str = "") -> Metrics:
    """Returns LVIS's thirteen numbers: AP AP50 AP75 APs APm APl APr APc APf AR@300 ARs@300 ARm@300 ARl@300."""
    ap, ar = f"AP{suffix}", f"AR{suffix}"
    out = _ap(tables, ap)
    for letter in "rcf":
        out[f"{ap}{letter}"] = tables.ap(categories=np.flatnonzero(federation.frequency == letter))
    return out | {f"{ar}{size}@{limit}": tables.ar(bin_name=size) for size in ("", "s", "m", "l")}
