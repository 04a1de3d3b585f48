"""When this stage run began, seen from outside: before the interpreter started. Standard library only."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_start: list[float] = []


def process_start_time() -> float:
    """Return seconds since the epoch at which this run's process began, accurate to about 10 ms.

    In a child of the stage host it is the time at which the waiting client began. Where `/proc` is
    missing it is the time of the first call.
    """
    if not _start:
        _start.append(time.time())
        with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):
            # Field 22, counted after the parenthesised name, which may hold spaces: ticks between
            # boot and start.
            fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
            begin = int(fields[19]) / os.sysconf("SC_CLK_TCK")
            _start[0] = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - begin)
    return _start[0]


def set_process_start_time(value: float) -> None:
    """Set the time that `process_start_time` returns from now on."""
    _start[:] = [value]
