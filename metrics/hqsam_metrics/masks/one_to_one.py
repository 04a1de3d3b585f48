"""IoU and boundary IoU of masks that belong together one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqsam_base.processes import run_parts
from hqsam_base.progress import Progress, silent
from hqsam_base.runs import Int, RleBatch
from hqsam_metrics.ap.decoding import decode_shapes, load_kernels
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


@dataclass(frozen=True)
class _Job:
    """What every part of the work needs."""

    pred: RleBatch
    target: RleBatch
    ratios: tuple[float, ...]
    names: tuple[str, str]
    chunks: list[Int]


def paired_ious(
    pred: RleBatch,
    target: RleBatch,
    ratios: tuple[float, ...],
    *,
    names: tuple[str, str] = ("prediction", "target"),
    workers: int = 1,
    progress: Progress = silent,
) -> Paired:
    """Computes the values of the pairs (pred[i], target[i]).

    Args:
        pred: n masks.
        target: n masks of the same sizes.
        ratios: dilation ratios.
        names: what a malformed mask is called in the error (its number follows).
        workers: processes; changes no number.
        progress: told how far the work is.

    Raises:
        UserError: a malformed run-length code.
    """
    load_kernels(len(pred))
    pixels = np.cumsum(pred.heights * pred.widths)
    work = np.maximum(pixels // _CHUNK_PIXELS, np.arange(len(pred)) // _CHUNK)
    chunks = np.split(np.arange(len(pred)), np.flatnonzero(np.diff(work)) + 1)
    job = _Job(pred, target, ratios, names, [part for part in chunks if len(part)])
    nothing = Paired(np.zeros(0), np.zeros((len(ratios), 0)), *np.zeros((2, 0), np.int64))
    parts = [nothing, *run_parts(_part, job, len(job.chunks), workers=workers, progress=progress)]
    columns = ("iou", "biou", "intersection", "union")
    return Paired(*(np.concatenate([getattr(p, key) for p in parts], axis=-1) for key in columns))


def _part(job: _Job, number: int) -> Paired:
    rows = job.chunks[number]
    numbers = np.arange(len(job.pred))
    a = decode_shapes(job.pred, rows, job.names[0], numbers)
    b = decode_shapes(job.target, rows, job.names[1], numbers)
    i = np.arange(len(rows))
    crowd = np.zeros(len(rows), bool)
    pairs = pair_ious(a, b, i, i, crowd=crowd, floor=0.0, ratios=job.ratios)
    iou, biou = np.zeros(len(rows)), np.zeros((len(job.ratios), len(rows)))
    iou[pairs.dt], biou[:, pairs.dt] = pairs.iou, pairs.biou
    # IoU = I / (A + B - I), so I = IoU (A + B) / (1 + IoU): an integer, hence exact after rounding.
    both = a.areas + b.areas
    intersection = np.rint(iou * both / (1 + iou)).astype(np.int64)
    union = both - intersection
    iou[union == 0], biou[:, union == 0] = np.nan, np.nan
    return Paired(iou, biou, intersection, union)
