"""The progress callback of all stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Report(Protocol):
    """Told how far a stage is; it must be cheap and must not raise."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` units (0 = unknown) of `what` are finished."""


def with_rate(report: Report, name: str, *, clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """A callback (bytes so far, bytes in all or 0) that adds rate and time left to the report on the file `name`.

    The rate is the mean since the first call: what an earlier run had downloaded does not count.
    """
    begun: list[tuple[float, int]] = []

    def progress(done: int, total: int) -> None:
        if not begun:
            begun.append((clock(), done))
        seconds, fresh = clock() - begun[0][0], done - begun[0][1]
        report(done, total, f"{name}{_pace(fresh, max(0, total - done), seconds)}")

    return progress


def _pace(fresh: int, left: int, seconds: float) -> str:
    """`, 5.1 MB/s, 11 min left`, as far as it can be told."""
    if fresh <= 0 or seconds <= 0:
        return ""
    rate = fresh / seconds
    remaining = left / rate
    eta = f", {remaining:.0f} s left" if remaining < 120 else f", {remaining / 60:.0f} min left"
    return f", {rate / 1e6:.1f} MB/s{eta if left else ''}"
