"""Large result files as columns, read by a compiled reader where it knows their form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base import compiled
from hqsam_base.progress import Progress
from hqsam_base.runs import Int

KERNELS = "hqsam_metrics.ap.json_kernels"
# Bytes of a file from which the import of the compiled reader (0.4 s) pays off.
_WORTH = 8 << 20
_BLOCK = 1 << 24
# The shortest record with all its keys has 77 characters and a comma.
_SHORTEST = 78


@dataclass(frozen=True)
class Columns:
    """A result file.

    Attributes:
        fields: int64 [n, 4], image id, category id, height and width of the mask.
        score: float64 [n].
        data: uint8, the run-length strings.
        offsets: int64 [n + 1], where each begins and ends.
    """

    fields: Int
    score: NDArray[np.float64]
    data: NDArray[np.uint8]
    offsets: Int


def scan_results(path: Path, progress: Progress) -> Columns | None:
    """Reads a COCO result file; None where it is small, or not wholly of the usual form, be that valid or not."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    if not compiled.ready(KERNELS, size=size, worth=_WORTH):
        return None
    with path.open("rb") as file:
        return _scan(file, size, progress)


def _scan(file: Any, size: int, progress: Progress) -> Columns | None:
    from hqsam_metrics.ap import json_kernels as kernels

    # Pages that are never written to take no memory: the strings need no copy. No more than `size`
    # bytes are read, so they have room even if the file grows meanwhile.
    data, used = np.empty(size, np.uint8), np.zeros(2, np.int64)
    text = np.fromfile(file, np.uint8, min(_BLOCK, size))
    head = text[:64].tobytes()
    begin = len(head) - len(head.lstrip(b" \t\r\n"))
    if head[begin : begin + 1] != b"[":
        return None
    state = np.array([0, begin + 1, kernels.MORE, 0], np.int64)
    parts: list[tuple[Int, NDArray[np.float64], Int]] = []
    done = 0
    while True:
        room = len(text) // _SHORTEST + 1
        fields, scores, ends = (
            np.empty((room, kernels.FIELDS), np.int64),
            np.empty(room),
            np.empty(room, np.int64),
        )
        kernels.scan(text, len(text), fields, scores, ends, data, used, state)
        n, at, status = (int(value) for value in state[:3])
        for row in np.flatnonzero(fields[:n, 4] >= 0).tolist():
            scores[row] = float(text[fields[row, 4] : fields[row, 5]].tobytes())
        parts.append((fields[:n, :4].copy(), scores[:n].copy(), ends[:n].copy()))
        done += n
        progress(done, 0, "reading results")
        rest = text[at:]
        if status == kernels.CLOSED:
            tail = rest.tobytes() + file.read(_BLOCK)
            break
        # A record longer than what is read at a time is none of the usual form.
        block = np.fromfile(file, np.uint8, min(_BLOCK, size - file.tell()))
        if status == kernels.UNKNOWN or not len(block) or len(rest) > 2 * _BLOCK:
            return None
        text = np.concatenate([rest, block])
        state[1] = 0
    fields, scores, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
    if tail.strip(b" \t\r\n") or not np.isfinite(scores).all():
        return None
    return Columns(fields, scores, data[: used[0]], np.append(0, ends))
