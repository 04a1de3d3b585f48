"""Decoding the masks of a file for scoring: compiled where it pays off, with the broken one named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from hqsam_base import compiled
from hqsam_base.errors import UserError
from hqsam_base.processes import run_parts, worker_count
from hqsam_base.progress import Progress, silent
from hqsam_base.runs import Int, RleBatch, RleError, Runs, decode_runs
from hqsam_metrics.ap import matching
from hqsam_metrics.masks.packed import KERNELS, Shapes

_CHECK_MASKS = 8192
# Masks from which the import of the compiled kernels (0.4 s), or one more process, pays off.
_WORTH = 20_000
_KERNELS = (matching.KERNELS, KERNELS)
Decoded = TypeVar("Decoded", Runs, Shapes)


def mask_workers(n_masks: int) -> int:
    """Returns how many processes a stage should score so many masks in: it uses the machine, and small sets no fork."""
    return worker_count(n_masks, worth=_WORTH)


def load_kernels(n_masks: int) -> None:
    """Imports the compiled kernels where so many masks are scored that it pays off: the parts of the work find them."""
    if all(compiled.ready(name, size=n_masks, worth=_WORTH) for name in _KERNELS):
        for name in _KERNELS:
            importlib.import_module(name)


def decode_shapes(masks: RleBatch, rows: Int, describe: str, numbers: Int) -> Shapes:
    """Decodes and measures some masks of a file.

    Args:
        masks: all masks.
        rows: int64 [m], which.
        describe: what to say before the number of a malformed one ("results.json: result").
        numbers: int64 [n], the number of each mask in that message.

    Raises:
        UserError: a malformed run-length code.
    """
    return _described(Shapes.decoded, masks, rows, describe, numbers)


def _described(
    decode: Callable[[RleBatch], Decoded], masks: RleBatch, rows: Int, describe: str, numbers: Int
) -> Decoded:
    try:
        return decode(masks.take(rows))
    except RleError as error:
        number = numbers[rows[error.index]]
        raise UserError(f"{describe} {number}: malformed run-length code: {error.reason}") from None


@dataclass(frozen=True)
class _Check:
    """Masks that take no part: `rows` of `masks`."""

    masks: RleBatch
    rows: Int
    describe: str
    numbers: Int


def _check_part(job: _Check, part: int) -> None:
    rows = job.rows[part * _CHECK_MASKS : (part + 1) * _CHECK_MASKS]
    what = (job.masks, rows, job.describe, job.numbers)
    if compiled.loaded(KERNELS) is None:
        _described(decode_runs, *what)
    else:
        _described(Shapes.decoded, *what)


def check_unused(
    masks: RleBatch,
    used: Int,
    describe: str,
    numbers: Int,
    *,
    workers: int = 1,
    progress: Progress = silent,
) -> None:
    """Checks the masks that the protocol's cuts leave out: a broken file is broken wherever it is.

    Args:
        masks: all masks of a file.
        used: int64 [m], the rows that are scored (and checked there).
        describe: see `decode_shapes`.
        numbers: see `decode_shapes`.
        workers: processes.
        progress: told how far the work is.

    Raises:
        UserError: a malformed run-length code.
    """
    left = np.ones(len(masks), bool)
    left[used] = False
    job = _Check(masks, np.flatnonzero(left), describe, numbers)
    n_parts = -(-len(job.rows) // _CHECK_MASKS)
    for _ in run_parts(
        _check_part, job, n_parts, workers=workers, progress=progress, what="checking masks"
    ):
        pass
