"""Names of AP and AR values, as the evaluators and the reports write them, and what they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hqsam_metrics.base import Quantity, Score, Value, click_value

if TYPE_CHECKING:
    from hqsam_metrics.ap.accumulate import Tables
    from hqsam_metrics.ap.instances import Federation

Metrics = dict[str, float | None]

IOU = Quantity("instance IoU", ("iou",))
BOUNDARY_IOU = Quantity("instance boundary IoU", ("biou",))

_NAME = re.compile(r"(AP|AR)(_B)?(_strict)?(.*)")
_CELLS = ("", "50", "75", "s", "m", "l", "r", "c", "f")
_DETAIL = re.compile(r"AR.*|AP[rcf]|AP_B(_strict)?[smlrcf]")


class ApScore(Score):
    """Traits of a metric of AP: the best detection of each object stands for it in the per-instance table."""

    columns = ("iou", "biou")
    headline = ("AP", "AP_B")
    pictured = Quantity("boundary IoU", ("biou",))
    best_of_class = True

    def value(self, metric: str) -> Value:
        """See `hqsam_metrics.base.Score`; AP over all sizes and thresholds can be resampled."""
        if (clicked := click_value(metric)) is not None:
            return clicked
        kind, boundary, _, cell = _parts(metric)
        stand_in = BOUNDARY_IOU if boundary else IOU
        return Value(
            stand_in=stand_in if kind == "AP" else None,
            resampled=kind == "AP" and not cell,
            detail=_DETAIL.fullmatch(metric) is not None,
        )

    def place(self, metric: str) -> tuple[Any, ...]:
        """See `hqsam_metrics.base.Score`: AP before AR, mask before boundary before strict."""
        kind, boundary, strict, cell = _parts(metric)
        place = _CELLS.index(cell) if cell in _CELLS else len(_CELLS)
        return (kind == "AR", bool(boundary), bool(strict), place, metric)


def _parts(metric: str) -> tuple[str, str | None, str | None, str]:
    found = _NAME.fullmatch(metric)
    return ("", None, None, metric) if found is None else found.groups()  # type: ignore[return-value]


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
        out[f"{ap}{letter}"] = tables.ap(categories=(federation.frequency == letter).nonzero()[0])
    return out | {f"{ar}{size}@{limit}": tables.ar(bin_name=size) for size in ("", "s", "m", "l")}
