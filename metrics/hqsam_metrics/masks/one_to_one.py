"""IoU and boundary IoU of masks that belong together one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqsam_base.progress import Progress, silent
from hqsam_base.runs import Int, RleBatch
from hqsam_metrics.ap.detection import decode_shapes
from hqsam_metrics.masks.pairs import pair_ious

_CHUNK = 1024
_CHUNK_PIXELS = 1 << 29


@dataclass(frozen=True)
class Paired:
    """Values of n pairs; NaN where both masks are empty.

    Attributes:
        iou: float64 [n].
        biou: float64 [ratios, n].
        intersection: int64 [n], pixels.
        union: int64 [n], pixels.
    """

    iou: NDArray[np.float64]
    biou: NDArray[np.float64]
    intersection: Int
    union: Int


def _chunks(batch: RleBatch) -> list[Int]:
    work = np.maximum(
        np.cumsum(batch.heights * batch.widths) // _CHUNK_PIXELS, np.arange(len(batch)) // _CHUNK
    )
    return [
        part
        for part in np.split(np.arange(len(batch)), np.flatnonzero(np.diff(work)) + 1)
        if len(part)
    ]


def paired_ious(
    pred: RleBatch,
    target: RleBatch,
    ratios: tuple[float, ...],
    *,
    names: tuple[str, str] = ("prediction", "target"),
    progress: Progress = silent,
) -> Paired:
    """Computes the values of the pairs (pred[i], target[i]).

    Args:
        pred: n masks.
        target: n masks of the same sizes.
        ratios: dilation ratios.
        names: what a malformed mask is called in the error (its number follows).
        progress: told how far the work is.

    Raises:
        UserError: a malformed run-length code.
    """
    n = len(pred)
    iou, biou = np.zeros(n), np.zeros((len(ratios), n))
    intersection, union = np.zeros(n, np.int64), np.zeros(n, np.int64)
    numbers = np.arange(n)
    for rows in _chunks(pred):
        a = decode_shapes(pred, rows, names[0], numbers)
        b = decode_shapes(target, rows, names[1], numbers)
        i = np.arange(len(rows))
        pairs = pair_ious(a, b, i, i, crowd=np.zeros(len(rows), bool), floor=0.0, ratios=ratios)
        at = rows[pairs.dt]
        iou[at], biou[:, at] = pairs.iou, pairs.biou
        # IoU = I / (A + B - I), so I = IoU (A + B) / (1 + IoU): an integer, hence exact after
        # rounding.
        both = a.areas + b.areas
        intersection[rows] = np.rint(iou[rows] * both / (1 + iou[rows])).astype(np.int64)
        union[rows] = both - intersection[rows]
        progress(int(rows[-1]) + 1, n, "scoring")
    empty = union == 0
    iou[empty], biou[:, empty] = np.nan, np.nan
    return Paired(iou, biou, intersection, union)
