"""Interactive segmentation: number of clicks to an IoU (NoC), mean IoU after k clicks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_metrics.base import CLICK_THRESHOLDS, Outcome, Units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hqsam_metrics.benchmark_data import Predictions

MAX_CLICKS = 20


def _table(ious: Any) -> NDArray[np.float64]:
    table = np.asarray(ious, np.float64)
    if table.ndim != 2 or not table.shape[1]:
        raise ValueError(f"ious must be [objects, clicks], is {table.shape}")
    if np.isnan(table).any():
        raise ValueError("ious holds NaN: an undefined IoU has no place in a click curve")
    return table


def clicks_to(ious: Any, *, threshold: float, max_clicks: int = MAX_CLICKS) -> NDArray[np.int64]:
    """Returns, for each object, the first click at which the IoU reaches the threshold: int64 [n].

    Args:
        ious: [n, k], IoU after click 1..k.
        threshold: 0.9 for NoC@90, 0.95 for NoC@95; reached when IoU >= threshold.
        max_clicks: value of an object that never reaches it; clicks beyond it are not looked at.

    Raises:
        ValueError: no table, NaN in it, or fewer than `max_clicks` clicks for an object that has
            not reached it.
    """
    table = _table(ious)[:, :max_clicks]
    reached = table >= threshold
    failed = ~reached.any(axis=1)
    if failed.any() and table.shape[1] < max_clicks:
        raise ValueError(
            f"an object is below {threshold} after {table.shape[1]} clicks: {max_clicks} are needed"
        )
    return np.where(failed, max_clicks, reached.argmax(axis=1) + 1).astype(np.int64)


def noc(ious: Any, *, threshold: float, max_clicks: int = MAX_CLICKS) -> float:
    """Returns the mean number of clicks (NoC) to the threshold, see `clicks_to`."""
    return float(clicks_to(ious, threshold=threshold, max_clicks=max_clicks).mean())


def failures(ious: Any, *, threshold: float, max_clicks: int = MAX_CLICKS) -> int:
    """Returns the number of objects that do not reach the threshold within `max_clicks`."""
    return int((~(_table(ious)[:, :max_clicks] >= threshold).any(axis=1)).sum())


def miou_at(ious: Any, *, click: int) -> float:
    """Returns the mean IoU after `click` clicks.

    Raises:
        ValueError: there are not so many clicks.
    """
    table = _table(ious)
    if not 1 <= click <= table.shape[1]:
        raise ValueError(f"click is {click}, there are {table.shape[1]}")
    return float(table[:, click - 1].mean())


def rules(n: int) -> dict[str, Any]:
    """Returns what the protocol block says of an interactive prompt set of `n` clicks."""
    return {
        "clicks": n,
        "clicks_next": "middle of the largest error region, both kinds apart; equally deep: negative",
        "clicks_input": "all clicks so far with the logits of the prediction before; single mask",
        "clicks_noc": f"IoU >= {', '.join(map(str, CLICK_THRESHOLDS))} per cent; missed: {n}",
    }


def outcome(data: Predictions, n: int, columns: Sequence[str]) -> Outcome:
    """Scores an interactive prompt set, whatever the benchmark's own metric: each object against its own mask.

    Args:
        data: the predictions; the ids of an object's prompts end in `~1` to `~n`.
        n: clicks of each object.
        columns: of the benchmark's per-instance table; `iou` is that after the last click, the
            others are undefined.

    Raises:
        UserError: a prompt without its object.
    """
    from hqsam_metrics.benchmark_data import lookup, rle_column, strings
    from hqsam_metrics.masks.one_to_one import paired_ious

    truth = data.benchmark.instances
    row = lookup(data.prompts["instance_id"], truth["instance_id"])
    ids = [str(name) for name in strings(data.prompts, "prompt_id")]
    if (row < 0).any():
        raise UserError(f"{data.folder}: {ids[int(np.argmax(row < 0))]}: its object is unknown")
    target = rle_column(truth, data.benchmark.folder / "instances.parquet").take(row)
    iou = paired_ious(data.masks, target, ()).iou
    click = np.array([int(name.rpartition("~")[2]) for name in ids])
    order = np.lexsort((click, row))
    table = iou[order].reshape(-1, n)
    last = order[n - 1 :: n]
    metrics: dict[str, float | None] = {}
    for threshold in CLICK_THRESHOLDS:
        share = threshold / 100
        metrics[f"NoC{threshold}"] = noc(table, threshold=share, max_clicks=n)
        metrics[f"NoF{threshold}"] = float(failures(table, threshold=share, max_clicks=n))
    metrics |= {f"mIoU@{k}": miou_at(table, click=k) for k in range(1, n + 1)}
    keys = data.keys()
    key = [keys[i] for i in last]
    undefined = np.full(len(last), np.nan)
    values = {name: iou[last] if name == "iou" else undefined for name in columns}
    units = Units(key, key, [ids[i] for i in last], values)
    return Outcome(metrics, len(table), len(table), units)
