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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from hqsam import systems
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.passes import BenchmarkImages, Engine, Figures
from hqsam.prediction.rows import SCHEMA, MaskRows, table
from hqsam_base.atomic import write_json
from hqsam_base.errors import UserError
from hqsam_base.processes import end_with_parent
from hqsam_base.progress import Progress
from hqsam_datasets.formats import manifest

ABOUT = "systems.json"
"""What the summary says of the systems, until it is written."""

PROCESSES_VARIABLE = "HQSAM_PREDICT_PROCESSES"
"""Environment variable: how many processes predict; by default one per GPU, or one. It changes no byte, so it is no parameter."""


@dataclass(frozen=True)
class Job:
    """What a process needs to predict: folder of the index stage, what the systems are opened with, and their entries."""

    benchmark: Path
    context: systems.Context
    entries: tuple[systems.Entry, ...]

    @property
    def options(self) -> PredictOptions:
        """Protocol and sizes."""
        return self.context.options


def spans(n_images: int, images_per_part: int) -> list[range]:
    """The images of each part; at least one part, empty if there are no images."""
    starts = range(0, max(1, n_images), images_per_part)
    return [range(start, min(start + images_per_part, n_images)) for start in starts]


def process_count(options: PredictOptions, n_parts: int) -> int:
    """Processes to use: the environment's number, else one per GPU, or one; no more than there are parts.

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
    gpus = torch.cuda.device_count() if options.device != "cpu" else 0
    return max(1, min(int(given) if given else gpus, n_parts))


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
        UserError: an input is damaged, or a process died.
    """
    planned = dict(enumerate(spans(len(images), job.options.images_per_part)))
    todo = {
        number: span for number, span in planned.items() if not part_path(folder, number).is_file()
    }
    done = len(images) - sum(len(span) for span in todo.values())
    progress(done, len(images), what)
    count = process_count(job.options, len(todo))
    figures = Figures()
    if count > 1:
        for span, of_span in _in_processes(job, folder, todo, count):
            done += len(span)
            figures.add(of_span)
            progress(done, len(images), what)
    elif todo:
        writer = _Writer(job, images, folder)
        figures = writer.write(folder, todo, lambda some: progress(done + some, len(images), what))
    if todo:
        told(figures.rates(count))


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part-{number:05d}.parquet"


class _Writer:
    """The systems and the images, ready to write parts; and `ABOUT`, which only opened systems know."""

    def __init__(self, job: Job, images: BenchmarkImages, folder: Path) -> None:
        torch.set_num_threads(job.options.threads or torch.get_num_threads())
        self._images = images
        opened = [(e.name, systems.load(e.options.kind).open(e, job.context)) for e in job.entries]
        self._engine = Engine(opened, job.options)
        write_json(folder / ABOUT, _about(job.entries, dict(opened), images))

    def write(
        self, folder: Path, parts: Mapping[int, range], told: Callable[[int], None]
    ) -> Figures:
        """Predict spans and write each as a part, while the next is predicted.

        Args:
            folder: for the parts.
            parts: their numbers and images.
            told: hears how many images are decoded.

        Returns:
            How fast.
        """
        start = time.perf_counter()
        figures = self._engine.figures = Figures()
        with (
            ThreadPoolExecutor(1) as thread,
            contextlib.closing(self._engine.run(self._images, parts.values())) as found,
        ):
            written = None
            for number, span in parts.items():
                rows = []
                for of_image in itertools.islice(found, len(span)):
                    rows.append(of_image)
                    told(figures.images)
                if written is not None:
                    written.result()
                written = thread.submit(_write_part, part_path(folder, number), rows)
            if written is not None:
                written.result()
        figures.wall_s = time.perf_counter() - start
        return figures


def _write_part(path: Path, rows: Sequence[Sequence[MaskRows]]) -> None:
    whole = pa.concat_tables([SCHEMA.empty_table(), *map(table, rows)])
    manifest.write_table(path, whole, schema=SCHEMA, sort_by=("key", "prompt_id", "system"))


def _about(
    entries: Sequence[systems.Entry], opened: Mapping[str, Any], images: BenchmarkImages
) -> dict[str, Any]:
    """Protocol blocks by system, and the prompt sets that a system cannot use."""
    protocols: dict[str, Any] = {}
    unsupported: dict[str, list[str]] = {}
    for entry in entries:
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
    return {"protocols": protocols, "unsupported": unsupported}


# ---- several processes ----

_mine: list[_Writer] = []
"""The writer of this process, where it is one of several."""


def _in_processes(
    job: Job, folder: Path, todo: Mapping[int, range], count: int
) -> Iterator[tuple[range, Figures]]:
    """Hand the parts to processes as they become free; gives each span when it is written, and how fast."""
    context = multiprocessing.get_context(
        "spawn"
    )  # a forked process cannot use CUDA, nor torch's threads
    numbers = context.Value("i", 0)
    with ProcessPoolExecutor(
        count, mp_context=context, initializer=_begin, initargs=(job, numbers, folder)
    ) as pool:
        tasks = {pool.submit(_write, folder, number, span): span for number, span in todo.items()}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BrokenProcessPool as error:
            cure = (
                f"look for its message above; with too little memory set {PROCESSES_VARIABLE} to "
                f"a smaller number"
            )
            raise UserError("a predicting process died", file=folder, cure=cure) from error
        finally:
            for task in tasks:
                task.cancel()


def _begin(job: Job, numbers: Any, folder: Path) -> None:
    end_with_parent(signal.SIGKILL)  # parts are atomic, nothing needs to be tidied
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1
    if job.options.device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    _mine.append(_Writer(job, BenchmarkImages(job.benchmark), folder))


def _write(folder: Path, number: int, span: range) -> Figures:
    return _mine[0].write(folder, {number: span}, lambda some: None)
