"""The parts of a predict stage: which images each holds, and writing them in one process or in several.

A part is a fixed span of the images in key order, whatever the number of processes: each image is
in exactly one part, each part is written by exactly one process, and its bytes depend on nothing
but the span.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from hqsam.model import leases
from hqsam.prediction import on_nodes
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.part import Job, PartWriter, part_path
from hqsam.prediction.passes import BenchmarkImages, Figures
from hqsam_base import ray_parts
from hqsam_base.atomic import read_json, write_json
from hqsam_base.errors import UserError
from hqsam_base.processes import end_with_parent
from hqsam_base.progress import Progress
from hqsam_base.terminal import say

HALVED = "halved.json"
"""Options that some part came down to for want of memory, there."""

PROCESSES_VARIABLE = "HQSAM_PREDICT_PROCESSES"
"""Environment variable: how many processes predict; by default one per GPU, or one. It changes no byte, so it is no parameter."""


def spans(
    n_images: int, images_per_part: int, units: Sequence[str | None] | None = None
) -> list[range]:
    """The images of each part; at least one part, empty if there are no images.

    Args:
        n_images: of the benchmark.
        images_per_part: at least, but for the last part.
        units: the video of each image, where a part must hold whole videos; without it parts are
            of equal size.
    """
    found: list[range] = []
    start = 0
    while start < n_images or not found:
        stop = min(start + images_per_part, n_images)
        while units and 0 < stop < n_images and units[stop] == units[stop - 1]:
            stop += 1
        found.append(range(start, stop))
        start = stop
    return found


@contextlib.contextmanager
def _devices(job: Job, n_parts: int, on_ray: bool) -> Iterator[list[str]]:
    """The GPUs of this stage: leased where the job says how, at most one for each part; none on the CPU."""
    there = leases.visible() if job.options.device != "cpu" else []
    if job.leases is None or on_ray or not there or not n_parts:
        yield there
        return
    with leases.leased(
        job.leases,
        least=1,
        most=process_count(job.options, n_parts, there),
        owner=f"predict {job.benchmark.name}",
        say=lambda line: say(line, err=True),
    ) as mine:
        yield mine


def process_count(options: PredictOptions, n_parts: int, devices: Sequence[str]) -> int:
    """Processes to use: the environment's number, else one per GPU, or one; no more than there are parts.

    Args:
        options: how it is predicted.
        n_parts: that are to be written.
        devices: GPUs that the stage has.

    Raises:
        UserError: the environment holds no positive number.
    """
    given = os.environ.get(PROCESSES_VARIABLE)
    if given is not None and not (given.isdigit() and int(given)):
        raise UserError(
            f"{given!r} is not a number of processes",
            key=PROCESSES_VARIABLE,
            cure="set it to 1 or more",
        )
    return max(1, min(int(given) if given else len(devices), n_parts))


def write_parts(
    job: Job,
    images: BenchmarkImages,
    folder: Path,
    *,
    what: str,
    progress: Progress,
    told: Callable[[Mapping[str, float]], None],
) -> None:
    """Write every part that `folder` lacks; `images` are those of `job.benchmark`; `told` hears how fast (`Figures.rates`).

    Raises:
        UserError: parts failed, all others are written then; no system can be opened; or a process
            died.
    """
    planned = dict(enumerate(spans(len(images), job.options.images_per_part, images.units)))
    todo = {
        number: span for number, span in planned.items() if not part_path(folder, number).is_file()
    }
    done = len(images) - sum(len(span) for span in todo.values())
    progress(done, len(images), what)
    on_ray = bool(todo) and ray_parts.asked()
    with _devices(job, len(todo), on_ray) as devices:
        count = process_count(job.options, len(todo), devices)
        figures = Figures()
        failed: dict[int, Exception] = {}
        elsewhere = None
        if on_ray:
            elsewhere = on_nodes.on_ray(job, folder, todo)
        elif count > 1 or (todo and devices and devices != leases.visible()[:1]):
            elsewhere = _in_processes(job, folder, todo, count, devices)
        for number, found in elsewhere or ():
            if isinstance(found, Figures):
                figures.add(found)
            else:
                failed[number] = found
            done += len(todo[number])
            progress(done, len(images), what)
        if todo and elsewhere is None:
            writer = PartWriter(job, images, folder)
            figures, failed = writer.write(
                folder, todo, lambda some: progress(done + some, len(images), what)
            )
    if figures.halved:
        figures.add(Figures(halved=halved(folder)))
        write_json(folder / HALVED, figures.halved)
    if failed:
        raise _failure(failed, todo, images, folder)
    if todo:
        told(figures.rates(count))


_NAMED = 10


def _failure(
    failed: Mapping[int, Exception],
    spans: Mapping[int, range],
    images: BenchmarkImages,
    folder: Path,
) -> UserError:
    """One message for the parts that failed: what is wrong with the first, and the images of each."""
    first = failed[min(failed)]
    reason = first if isinstance(first, UserError) else None
    if reason is None:
        said = next(iter(str(first).splitlines()), "")
        reason = UserError(f"{type(first).__name__}: {said}", file=folder)
        reason.__cause__ = first
    lines = [
        f"part {number}: images {images.key(spans[number][0])} to {images.key(spans[number][-1])}"
        for number in sorted(failed)[:_NAMED]
    ]
    more = len(failed) - len(lines)
    lines += [f"and {more} more parts"] if more else []
    known = f"; {reason.cure}" if reason.cure else ""
    return reason.amended(
        f"{reason.problem}; {len(failed)} of {len(spans)} parts failed, the others are kept",
        details=[*reason.details, *lines],
        cure=f"run it again once that is mended: only these parts are predicted then{known}",
    )


def halved(folder: Path) -> dict[str, int]:
    """Options that parts of `folder` came down to for want of memory, and the smallest size of each."""
    found: dict[str, int] = read_json(folder / HALVED) if (folder / HALVED).is_file() else {}
    return found


# ---- several processes ----

_mine: list[PartWriter] = []
"""The writer of this process, where it is one of several."""


def _in_processes(
    job: Job, folder: Path, todo: Mapping[int, range], count: int, devices: Sequence[str]
) -> Iterator[tuple[int, Figures | Exception]]:
    """Hand the parts to processes as they become free; gives each one's number and how fast it was, or why it failed."""
    context = multiprocessing.get_context(
        "spawn"
    )  # a forked process cannot use CUDA, nor torch's threads
    numbers = context.Value("i", 0)
    with ProcessPoolExecutor(
        count, mp_context=context, initializer=_begin, initargs=(job, numbers, folder, devices)
    ) as pool:
        tasks = {pool.submit(_write, folder, number, span): number for number, span in todo.items()}
        try:
            for task in as_completed(tasks):
                figures, failed = task.result()
                yield tasks[task], next(iter(failed.values()), figures)
        except BrokenProcessPool as error:
            cure = (
                f"look for its message above; with too little memory set {PROCESSES_VARIABLE} to "
                f"a smaller number"
            )
            raise UserError("a predicting process died", file=folder, cure=cure) from error
        finally:
            for task in tasks:
                task.cancel()


def _begin(job: Job, numbers: Any, folder: Path, devices: Sequence[str]) -> None:
    end_with_parent(signal.SIGKILL)  # parts are atomic, nothing needs to be tidied
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1
    if devices:  # before CUDA is asked for the first time here: it reads this once
        os.environ |= leases.environment([devices[number % len(devices)]])
    _mine.append(PartWriter(job, BenchmarkImages(job.benchmark), folder))


def _write(folder: Path, number: int, span: range) -> tuple[Figures, dict[int, Exception]]:
    return _mine[0].write(folder, {number: span}, lambda some: None)
