"""Ordered work in processes: results come back in the order of the items, whatever the number of workers.

`Crew` forks from a server and is for items that are read on the way; `run_parts` forks from the
caller, so that large columns in its memory reach the processes without a copy. With
`HQSAM_EXECUTOR=ray` and a cluster the same items are Ray's tasks (`hqsam_base.ray_parts`).
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from hqsam_base import ray_parts
from hqsam_base.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS_VARIABLE = "HQSAM_WORKERS"
"""Environment variable: how many processes the data stages may use. It changes no result, so it is not a parameter."""


_SAFE_PATH = "PYTHONSAFEPATH"
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal as soon as its parent dies, however it dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def send_signal(process: int, number: int, *, group: bool = False) -> None:
    """Send a signal to a process, or to its group; nothing happens if it is gone or another user's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(process, number)


def worker_count(n_items: int, *, worth: int = 1) -> int:
    """Return how many processes to use: the environment's number, else the cores; `worth` items each."""
    given = os.environ.get(WORKERS_VARIABLE, "")
    limit = int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))
    return max(1, min(limit, n_items // max(1, worth)))


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep what pictures free for the next picture, instead of giving it back to the system.

    A decoded picture that is handed from one thread to another costs a fifth of its decoding in
    page faults otherwise. Up to 256 MB stay; without glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        allocator = ctypes.CDLL(None).mallopt
        allocator(
            _M_MMAP_THRESHOLD, 1 << 25
        )  # the most that glibc takes; setting one ends the tuning of both
        allocator(_M_TRIM_THRESHOLD, 1 << 28)


class Crew(Generic[Item, Result]):
    """Processes that apply one function to items, in order; started early if they will pay off.

    They are forked from a server (`multiprocessing.forkserver`), not from the caller, who may have
    threads. The server needs a quarter of a second to import what the function needs, once for all
    processes; that is best spent while the caller is still finding out what there is to do. The
    function and the items must be picklable. Use it as a context: its end waits for the processes,
    whose work is cancelled if it failed, and for the server, so that what they used counts as used
    by the caller's children. They end by themselves if the caller is killed.

    Args:
        function: applied to each item.
        ahead: items in flight, for each process, in work or with a result that the caller has not
            taken yet. More than two bridge a caller that does something slow with a result, and are
            memory where results are large.
    """

    def __init__(self, function: Callable[[Item], Result], *, ahead: int = 2) -> None:
        self._function = function
        self._ahead = ahead
        self.workers = 1
        self._context: BaseContext | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._ending: threading.Thread | None = None
        self._server: int | None = None

    def __enter__(self) -> Crew[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ending is not None:
            self._ending.join()
        else:
            self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._server is not None and self._server == _server():
            with contextlib.suppress(
                OSError
            ):  # somebody has emptied the temporary folder, where its socket was
                forkserver._forkserver._stop()  # type: ignore[attr-defined]

    def prepare(self, workers: int) -> None:
        """Use `workers` processes, and start their fork server early; 1: work in this process."""
        self.workers = workers
        if workers > 1 and not ray_parts.asked():
            # NumPy reads it when the server loads it: with threads of its own they run at a fifth
            # of the speed.
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
            before = _server()
            self._context = _context(self._function)
            self._server = self._server or (_server() if _server() != before else None)

    def map(self, items: Iterable[Item]) -> Iterator[Result]:
        """The function over `items` in order.

        Once the last result is there, the processes end while the caller goes on.
        """
        if self.workers <= 1:
            yield from map(self._function, items)
            return
        if ray_parts.asked():
            yield from ray_parts.Tasks(_apply, self._function).in_order(items, ahead=self._ahead)
            return
        self._pool = pool = ProcessPoolExecutor(self.workers, self._context, initializer=_begin)
        pending: collections.deque[Future[Result]] = collections.deque()
        for item in items:
            pending.append(pool.submit(self._function, item))
            if len(pending) >= self._ahead * self.workers:
                yield pending.popleft().result()
        while pending:
            result = pending.popleft().result()
            if not pending:
                self._ending = threading.Thread(target=self._end)
                self._ending.start()
            yield result


def _apply(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """`function` over `items` in order, in `workers` processes (1: in this one); see `Crew`."""
    with Crew(function) as crew:
        crew.prepare(workers)
        yield from crew.map(items)


# What the processes of `run_parts` inherit.
_INHERITED: list[tuple[Callable[[Any, int], Any], Any]] = []


def run_parts(
    function: Callable[[Any, int], Result],
    job: Any,
    total: int,
    *,
    workers: int,
    progress: Progress,
    what: str = "scoring",
) -> Iterator[Result]:
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
    if ray_parts.asked():
        tasks = ray_parts.Tasks(function, job)
        for number, result in enumerate(tasks.in_order(range(total))):
            yield result
            progress(number + 1, total, what)
        return
    _INHERITED[:] = [(function, job)]
    try:
        # Several parts at a time, so that small ones are not eaten up by the exchange between
        # processes.
        chunk = max(1, min(32, total // (4 * workers)))
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(min(workers, total), context, initializer=_end_with_parent)
        with _one_opencv_thread(), pool:
            for number, result in enumerate(pool.map(_part, range(total), chunksize=chunk)):
                yield result
                progress(number + 1, total, what)
    finally:
        _INHERITED.clear()


def _part(number: int) -> Any:
    function, job = _INHERITED[0]
    return function(job, number)


@contextlib.contextmanager
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


def _server() -> int | None:
    """Process number of the server that is running, if one is."""
    number: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return number


def _context(function: Callable[..., Any]) -> BaseContext:
    """How processes begin: forked from a server, which imports the function's module if it is not running yet."""
    module = getattr(function, "func", function).__module__  # of a partial: what it calls
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.fork_server", module])
    with contextlib.ExitStack() as stack:
        if (
            _SAFE_PATH not in os.environ
        ):  # or the server would import a `socket.py` of the current folder
            os.environ[_SAFE_PATH] = "1"
            stack.callback(os.environ.pop, _SAFE_PATH)
        try:
            forkserver.ensure_running()
        except (
            OSError
        ):  # no place for its socket, whose path may have 107 characters: TMPDIR is longer
            return multiprocessing.get_context("spawn")
    return context


def _begin() -> None:
    """Tie this process to its parent: it gets what is sent to the parent's group, and ends with it.

    Without, it would wait for work for ever when the parent is killed, or write on unseen.
    """
    os.environ.pop(_SAFE_PATH, None)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        with contextlib.suppress(OSError):
            os.setpgid(0, os.getpgid(parent.pid))
    _end_with_parent()


def _end_with_parent() -> None:
    """Let this process end when its parent does, even killed: it would wait for work for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_await, args=(parent,), daemon=True).start()


def _await(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
