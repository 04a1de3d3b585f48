"""Ordered work in processes: results come back in the order of the items, whatever the number of workers."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS_VARIABLE = "HQSAM_WORKERS"
"""Environment variable: how many processes the data stages may use. It changes no result, so it is no parameter."""


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def worker_count(n_items: int, *, worth: int = 1) -> int:
    """Processes to use for `n_items`: the environment's number, else the cores, at least `worth` items for each."""
    given = os.environ.get(WORKERS_VARIABLE, "")
    limit = int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))
    return max(1, min(limit, n_items // max(1, worth)))


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep what pictures free for the next picture, instead of giving it back to the system.

    A decoded picture that is handed from one thread to another costs a fifth of its decoding in page faults
    otherwise. Up to 256 MB stay; without glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None).mallopt
        allocator(_M_MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes; setting one ends the tuning of both
        allocator(_M_TRIM_THRESHOLD, 1 << 28)


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """`function` over `items` in order, in `workers` processes (1: in this one); at most twice as many in flight.

    Processes are spawned, not forked: the caller may have threads. `function` and the items must be picklable.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    # NumPy reads it when the new processes load it: with threads of its own in each they run at a fifth of the speed.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    pending: collections.deque[Future[Result]] = collections.deque()
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
