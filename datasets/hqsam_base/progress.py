"""The progress callback of all libraries."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called as (done, total, what): `done` of `total` units (0: unknown) of `what` are finished. It must
be cheap and must not raise."""


def silent(done: int, total: int, what: str) -> None:
    """Ignore the progress."""


def with_rate(
    progress: Progress, name: str, *, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """Wrap a callback so that it also tells the rate and the time left of the transfer of file `name`.

    Args:
        progress: The callback.
        name: The file's name, the first word of what is told.
        clock: Seconds, for tests.

    Returns:
        A callback (bytes so far, bytes in all or 0). The rate is the mean since its first call:
        what an earlier run had downloaded does not count.
    """
    begun: list[tuple[float, int]] = []

    def told(done: int, total: int) -> None:
        if not begun:
            begun.append((clock(), done))
        seconds, fresh = clock() - begun[0][0], done - begun[0][1]
        progress(done, total, f"{name}{_pace(fresh, max(0, total - done), seconds)}")

    return told


def _pace(fresh: int, left: int, seconds: float) -> str:
    """`, 5.1 MB/s, 11 min left`, as far as it can be told."""
    if fresh <= 0 or seconds <= 0:
        return ""
    rate = fresh / seconds
    remaining = left / rate
    eta = f", {remaining:.0f} s left" if remaining < 120 else f", {remaining / 60:.0f} min left"
    return f", {rate / 1e6:.1f} MB/s{eta if left else ''}"
