"""The parts of a predict stage: which images each holds, and writing them in one process or in several.

A part is a fixed span of the images in key order, whatever the number of processes: each image is
in exactly one part, each part is written by exactly one process, and its bytes depend on nothing
but the span.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from hqsam import systems
from hqsam.model import leases
from hqsam.model.device import pick_device
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.passes import BenchmarkImages, Engine, Figures
from hqsam.prediction.rows import SCHEMA, MaskRows, table
from hqsam_base import ray_files, ray_parts
from hqsam_base.atomic import read_json, write_json
from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError
from hqsam_base.processes import end_with_parent
from hqsam_base.progress import Progress
from hqsam_base.terminal import say
from hqsam_datasets.formats import manifest

ABOUT = "systems.json"
"""What the summary says of the systems, until it is written."""

INPUTS = "inputs.json"
"""The digest of all that the parts depend on, in the folder of unfinished work."""

HALVED = "halved.json"
"""Options that some part came down to for want of memory, there."""

PROCESSES_VARIABLE = "HQSAM_PREDICT_PROCESSES"
"""Environment variable: how many processes predict; by default one per GPU, or one. It changes no byte, so it is no parameter."""


@dataclass(frozen=True)
class Job:
    """What a process needs to predict.

    Attributes:
        benchmark: Folder of the index stage.
        context: What the systems are opened with.
        entries: Theirs.
        lenient: Leave out a system that cannot be opened, and say why in `ABOUT`.
        leases: Folder of the leases of GPUs (`hqsam.model.leases`); None: GPUs are taken without.
    """

    benchmark: Path
    context: systems.Context
    entries: tuple[systems.Entry, ...]
    lenient: bool = False
    leases: Path | None = None

    @property
    def options(self) -> PredictOptions:
        """Protocol and sizes."""
        return self.context.options


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
            elsewhere = _on_ray(job, folder, todo)
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
            writer = _Writer(job, images, folder)
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
_OF_A_PART = (UserError, ValueError, RuntimeError)
"""What images and prompts cause, and torch with them: the next part may be free of it. A full disk is not."""


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


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part-{number:05d}.parquet"


class _Writer:
    """The systems and the images, ready to write parts; and `ABOUT`, which only opened systems know."""

    def __init__(self, job: Job, images: BenchmarkImages, folder: Path) -> None:
        torch.set_num_threads(job.options.threads or torch.get_num_threads())
        self.job = job
        self._images = images
        opened, lost = _opened(job)
        self._engine = Engine(
            [(e.name, opened[e.name]) for e in job.entries if e.name in opened], job.options
        )
        device = pick_device(job.options.device).type  # where the parts are made: perhaps a node
        self._about = {"device": device, **_about(job.entries, opened, images, lost)}
        self.tell(folder)

    def tell(self, folder: Path) -> None:
        """Write `ABOUT` into the folder of the parts."""
        write_json(folder / ABOUT, self._about)

    def write(
        self, folder: Path, parts: Mapping[int, range], told: Callable[[int], None]
    ) -> tuple[Figures, dict[int, Exception]]:
        """Predict spans and write each as a part, while the next is predicted.

        Args:
            folder: for the parts.
            parts: their numbers and images.
            told: hears how many images are decoded.

        Returns:
            How fast, and what was wrong with the parts that are not written.
        """
        start = time.perf_counter()
        figures = self._engine.figures = Figures(halved=dict(self._engine.figures.halved))
        failed: dict[int, Exception] = {}
        left = dict(parts)
        while left:  # after a failure the rest goes through anew, without the part
            try:
                self._write(folder, left, failed, told)
            except _OF_A_PART as error:
                number = next(iter(left))
                del left[number]
                failed[number] = error
        figures.wall_s = time.perf_counter() - start
        return figures, failed

    def _write(
        self,
        folder: Path,
        left: dict[int, range],
        failed: dict[int, Exception],
        told: Callable[[int], None],
    ) -> None:
        """Write parts, and take each out of `left` as it is decoded; what fails then is noted in `failed`."""

        def finish(number: int, written: Future[None]) -> None:
            try:
                written.result()
            except _OF_A_PART as error:
                failed[number] = error

        with (
            ThreadPoolExecutor(1) as thread,
            contextlib.closing(self._engine.run(self._images, list(left.values()))) as found,
        ):
            before: list[tuple[int, Future[None]]] = []
            try:
                for number, span in list(left.items()):
                    rows = []
                    for of_image in itertools.islice(found, len(span)):
                        rows.append(of_image)
                        told(self._engine.figures.images)
                    while before:
                        finish(*before.pop())
                    written = thread.submit(_write_part, part_path(folder, number), rows)
                    before.append((number, written))
                    del left[number]
            finally:
                while before:
                    finish(*before.pop())


def _opened(job: Job) -> tuple[dict[str, Any], dict[str, str]]:
    """Open the systems; gives those that can be opened, and why others cannot.

    Raises:
        UserError: one cannot, and the job is not lenient; or none can.
    """
    opened: dict[str, Any] = {}
    lost: dict[str, str] = {}
    for entry in job.entries:
        try:
            one = systems.load(entry.options.kind).open(entry, job.context)
            if isinstance(one, systems.Derived) and one.of in lost:
                raise UserError(f"{one.of}, which it changes, was not opened")
            opened[entry.name] = one
        except (UserError, RuntimeError) as error:  # what torch raises, memory's end included
            if not job.lenient or (len(lost) + 1 == len(job.entries)):
                raise
            problem = error.problem if isinstance(error, UserError) else str(error)
            reason = next(iter(problem.splitlines()), type(error).__name__)
            kind = systems.load(entry.options.kind)
            lost |= {system.name: reason for system in kind.systems(entry)}
    return opened, lost


def _write_part(path: Path, rows: Sequence[Sequence[MaskRows]]) -> None:
    whole = pa.concat_tables([SCHEMA.empty_table(), *map(table, rows)])
    manifest.write_table(path, whole, schema=SCHEMA, sort_by=("key", "prompt_id", "system"))


def _about(
    entries: Sequence[systems.Entry],
    opened: Mapping[str, Any],
    images: BenchmarkImages,
    lost: Mapping[str, str],
) -> dict[str, Any]:
    """Protocol blocks by system, the prompt sets that a system cannot use, and why systems were not opened."""
    protocols: dict[str, Any] = {}
    unsupported: dict[str, list[str]] = {name: sorted(images.parts) for name in lost}
    for entry in (entry for entry in entries if entry.name in opened):
        one = opened[entry.name]
        for system in systems.load(entry.options.kind).systems(entry):
            if one.protocol:
                protocols[system.name] = dict(one.protocol)
            lacking = (
                unsupported.get(one.of, [])
                if isinstance(one, systems.Derived)
                else [name for name, parts in images.parts.items() if not parts <= one.takes]
            )
            if lacking:
                unsupported[system.name] = sorted(lacking)
    return {"protocols": protocols, "unsupported": unsupported, "failed": dict(lost)}


# ---- several processes ----

_mine: list[_Writer] = []
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
    _mine.append(_Writer(job, BenchmarkImages(job.benchmark), folder))


def _write(folder: Path, number: int, span: range) -> tuple[Figures, dict[int, Exception]]:
    return _mine[0].write(folder, {number: span}, lambda some: None)


# ---- nodes of a Ray cluster ----


@dataclass(frozen=True)
class _OnNode:
    """What a task on a node works on.

    Attributes:
        job: its files are the node's copies where there is no common file system.
        folder: the parts' folder, as text: it is no input, and so is not sent.
        by_url: folder in `HQSAM_PARTS_URL` for the parts of this job; None: `folder` is everybody's.
        url: of the store.
    """

    job: Job
    folder: str
    by_url: str | None
    url: str = ""


def _on_ray(
    job: Job, folder: Path, todo: Mapping[int, range]
) -> Iterator[tuple[int, Figures | Exception]]:
    """Hand the parts to the nodes of the cluster; gives each one's number and how fast it was, or why it failed."""
    store = ray_files.folder()
    node_job = _OnNode(job, str(folder.absolute()), None)
    if store is not None:
        # Made from the same inputs by the same code: `benchmark.predict` has written it there.
        inputs = sha256_file(folder / INPUTS)
        # Shared encodings are a folder of this machine, and would be sent as an input.
        alone = replace(job, context=replace(job.context, encodings=None), leases=None)
        node_job = _OnNode(alone, str(folder.absolute()), f"parts/{inputs}", store.url)
    tasks = ray_parts.Tasks(
        _write_on_node, node_job, cpus=job.options.threads or 1, on_gpu=job.options.device != "cpu"
    )
    for number, found in tasks.as_done(todo.items()):
        if store is not None and not isinstance(found, Exception):
            for name in (ABOUT, part_path(folder, number).name):
                store.get(f"{node_job.by_url}/{name}", folder / name)
            store.remove(f"{node_job.by_url}/{part_path(folder, number).name}")
        yield number, found


def _write_on_node(work: _OnNode, item: tuple[int, range]) -> tuple[int, Figures | Exception]:
    """Write one part; one that is there is not done again."""
    number, span = item
    if work.by_url is None:
        folder = Path(work.folder)
        if part_path(folder, number).is_file() and (folder / ABOUT).is_file():
            return number, Figures()
        return number, _written_here(work.job, folder, number, span)
    store = ray_files.Folder(work.url)
    names = (ABOUT, part_path(Path(), number).name)  # the part last: it says that both are there
    if store.has(f"{work.by_url}/{names[-1]}"):
        return number, Figures()
    with tempfile.TemporaryDirectory(prefix="hqsam-part-") as place:
        folder = Path(place)
        found = _written_here(work.job, folder, number, span)
        if isinstance(found, Figures):
            for name in names:
                store.put(folder / name, f"{work.by_url}/{name}")
    return number, found


def _written_here(job: Job, folder: Path, number: int, span: range) -> Figures | Exception:
    if not _mine or _mine[0].job != job:  # Ray's process, which has done no part of this job yet
        _mine[:] = [_Writer(job, BenchmarkImages(job.benchmark), folder)]
    _mine[0].tell(folder)
    figures, failed = _mine[0].write(folder, {number: span}, lambda some: None)
    return next(iter(failed.values()), figures)
