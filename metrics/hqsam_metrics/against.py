"""Two files of predictions for one ground truth: paired differences, intervals, verdicts, the most changed instances.

`hqsam score ... --against OTHER` in three calls: `rows`, `changed` and, for JSON, `to_dict`. The
intervals are those of `hqsam compare`: `hqsam_metrics.stats` for means over instances,
`hqsam_metrics.ap.resample` for AP; images are resampled (videos for video sets). The rows with an
interval are judged together (`hqsam_metrics.verdicts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_metrics.ap.resample import differences
from hqsam_metrics.base import Kept, Quantity, Result, Scale, Score, View
from hqsam_metrics.stats import Difference, paired
from hqsam_metrics.verdicts import Judged, judge

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One number of both files.

    Attributes:
        name: the metric, or a quantity that instances have.
        scale: how it is shown, and which way is better.
        other: value of the other file as shown; None: undefined.
        own: value of the file that is judged.
        judged: own minus other, with its interval and verdict.
    """

    name: str
    scale: Scale
    other: float | None
    own: float | None
    judged: Judged


@dataclass(frozen=True)
class Changed:
    """An instance whose quality changed.

    Attributes:
        row: its place in the units.
        unit: its name.
        quantity: what changed.
        other, own: the values as shown.
    """

    row: int
    unit: str
    quantity: str
    other: float
    own: float


def rows(score: Score, own: Result, other: Result) -> list[Row]:
    """Compare the numbers of two files in the metric's reading order, then those of their instances.

    Args:
        score: the metric.
        own: the file that is judged, with what was kept.
        other: what it is compared with, by the same rules and on the same ground truth.
    """
    a, b = _kept(other), _kept(own)
    means = {name: quantity for name in own.metrics if (quantity := score.value(name).mean_of)}
    found: dict[str, Difference | None] = {
        name: _difference(quantity, a, b) for name, quantity in means.items()
    }
    if a.matches is not None and b.matches is not None:
        names = [name for name in own.metrics if score.value(name).resampled]
        found |= differences(a.matches, b.matches, names)
    values = [
        (name, score.value(name).scale, other.metrics[name], own.metrics[name], found.get(name))
        for name in sorted(own.metrics, key=score.place)
    ]
    for quantity in _quantities(score, b):
        if quantity not in means.values():
            left, right = (_mean(_values(quantity, side)) for side in (a, b))
            difference = _difference(quantity, a, b)
            values.append((quantity.title, quantity.scale, left, right, difference))
    verdicts = judge([(difference, scale) for _, scale, _, _, difference in values])
    return [
        Row(name, scale, _shown(x, scale), _shown(y, scale), judged)
        for (name, scale, x, y, _), judged in zip(values, verdicts, strict=True)
    ]


def changed(score: Score, own: Result, other: Result, count: int) -> list[Changed]:
    """List the instances that changed most, the largest change first, `count` at most.

    They are ordered by the quantity that the metric's pictures are chosen by, where the files were
    scored by it, else by the first that they have.
    """
    a, b = _kept(other), _kept(own)
    quantity = next(q for q in (score.pictured, *_quantities(score, b)) if q and _has(q, b))
    left, right = (quantity.scale.factor * _values(quantity, side) for side in (a, b))
    size = np.nan_to_num(np.abs(right - left))
    order = np.argsort(-size, kind="stable")[:count]
    return [
        Changed(int(n), b.units.unit[n], quantity.title, float(left[n]), float(right[n]))
        for n in order
        if size[n] > 1e-9
    ]


def views(change: Changed, own: Result, other: Result) -> tuple[View, View]:
    """Give the masks of a changed instance, of the other file and of the own; of a video the frame that they differ most in."""
    pairs = zip(_kept(other).views(change.row), _kept(own).views(change.row), strict=True)
    return max(pairs, key=lambda pair: np.count_nonzero(pair[0].found != pair[1].found))


def to_dict(found: Sequence[Row], most: Sequence[Changed], other: Result) -> dict[str, Any]:
    """Give what `--json` adds: the other file's result, the differences as shown, the changed instances."""
    differences = {
        row.name: {
            "unit": row.scale.unit,
            "lower_is_better": row.scale.lower_is_better,
            "other": row.other,
            "own": row.own,
            "verdict": row.judged.verdict,
            "why": row.judged.why,
            "p": row.judged.p,
            **(
                {}
                if row.judged.difference is None
                else vars(row.judged.difference) | {"p": row.judged.p}
            ),
        }
        for row in found
    }
    instances = [{key: value for key, value in vars(one).items() if key != "row"} for one in most]
    return {"against": other.to_dict(), "differences": differences, "changed": instances}


def _kept(result: Result) -> Kept:
    assert result.kept is not None  # the files were scored with `keep`
    return result.kept


def _quantities(score: Score, side: Kept) -> list[Quantity]:
    """What stands beside an AP: the mean over objects of a value of their best detection."""
    stand_ins = [score.value(name).stand_in for name in score.headline]
    return [quantity for quantity in stand_ins if quantity is not None and _has(quantity, side)]


def _has(quantity: Quantity, side: Kept) -> bool:
    return all(column in side.units.values for column in quantity.columns)


def _values(quantity: Quantity, side: Kept) -> Float:
    return np.asarray(np.mean([side.units.values[c] for c in quantity.columns], axis=0))


def _difference(quantity: Quantity, a: Kept, b: Kept) -> Difference | None:
    moved = _values(quantity, b) - _values(quantity, a)
    return paired(quantity.scale.factor * moved, b.units.cluster)


def _mean(values: Float) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _shown(value: float | None, scale: Scale) -> float | None:
    return None if value is None else scale.factor * value
