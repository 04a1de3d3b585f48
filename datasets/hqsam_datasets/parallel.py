"""Ordered work in processes: results come back in the order of the items, whatever the number of workers."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Generic, TypeVar

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


class Crew(Generic[Item, Result]):
    """Processes that apply one function to items, in order; started as soon as it is known that they will pay off.

    Processes are spawned, not forked: the caller may have threads. They need a third of a second to import what the
    function needs, which is best spent while the caller is still finding out what there is to do. The function and the
    items must be picklable. Use it as a context: its end waits for the processes, whose work is cancelled if it failed.
    """

    def __init__(self, function: Callable[[Item], Result]) -> None:
        self._function = function
        self._workers = 1
        self._pool: ProcessPoolExecutor | None = None
        self._ending: threading.Thread | None = None

    def __enter__(self) -> Crew[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ending is not None:
            self._ending.join()
        elif self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def start(self, workers: int) -> None:
        """Start `workers` processes, unless some are there already; 1: the work is done in this process."""
        if workers <= 1 or self._pool is not None:
            return
        # NumPy reads it when the new processes load it: with threads of its own they run at a fifth of the speed.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._workers = workers
        self._pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        for _ in range(workers):  # each finds all processes busy, and so starts one more
            self._pool.submit(_import, self._function.__module__)

    def map(self, items: Iterable[Item]) -> Iterator[Result]:
        """The function over `items` in order, at most twice as many of them in flight as there are processes.

        Once the last result is there, the processes end while the caller goes on.
        """
        if self._pool is None:
            yield from map(self._function, items)
            return
        pending: collections.deque[Future[Result]] = collections.deque()
        for item in items:
            pending.append(self._pool.submit(self._function, item))
            if len(pending) >= 2 * self._workers:
                yield pending.popleft().result()
        while pending:
            result = pending.popleft().result()
            if not pending:
                self._ending = threading.Thread(
                    target=self._pool.shutdown
                )  # `wait=False` could not be waited for later
                self._ending.start()
            yield result


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """`function` over `items` in order, in `workers` processes (1: in this one); see `Crew`."""
    with Crew(function) as crew:
        crew.start(workers)
        yield from crew.map(items)


def _import(module: str) -> None:
    if module != "__main__":
        importlib.import_module(module)
