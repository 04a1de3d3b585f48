"""Running the parts of a job in order, here or in forked processes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from hqsam_base.progress import Progress

R = TypeVar("R")
# What the forked processes inherit: large columns reach them without a copy.
_STATE: list[tuple[Callable[[Any, int], Any], Any]] = []


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Ends OpenCV's threads for the time of the block: a fork would inherit their locks but not the threads."""
    cv2 = sys.modules.get("cv2")
    if cv2 is None:
        yield
        return
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _end_with_parent() -> None:
    """Let this process end when its parent does, even killed: it would wait for work for ever."""
    if (parent := parent_process()) is not None:
        threading.Thread(target=_await, args=(parent,), daemon=True).start()


def _await(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _task(number: int) -> Any:
    function, job = _STATE[0]
    return function(job, number)


def run_parts(
    function: Callable[[Any, int], R], job: Any, total: int, *, workers: int, progress: Progress, what: str = "scoring"
) -> Iterator[R]:
    """Yields ``function(job, n)`` for n = 0 .. total - 1, in that order.

    Args:
        function: a module-level function.
        job: what it works on; processes share it by fork.
        total: number of parts.
        workers: processes; 1 computes here.
        progress: told how far the work is.
        what: word for the progress.
    """
    if workers <= 1 or total < 2:
        for number in range(total):
            yield function(job, number)
            progress(number + 1, total, what)
        return
    _STATE[:] = [(function, job)]
    try:
        # Several parts at a time, so that small ones are not eaten up by the exchange between processes.
        chunk = max(1, min(32, total // (4 * workers)))
        pool = ProcessPoolExecutor(min(workers, total), get_context("fork"), initializer=_end_with_parent)
        with _one_opencv_thread(), pool:
            for number, result in enumerate(pool.map(_task, range(total), chunksize=chunk)):
                yield result
                progress(number + 1, total, what)
    finally:
        _STATE.clear()
