"""One part of a predict stage: what a process needs to write it, and the writing."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from hqsam import systems
from hqsam.model.device import pick_device
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.passes import BenchmarkImages, Engine, Figures
from hqsam.prediction.rows import SCHEMA, MaskRows, table
from hqsam_base.atomic import write_json
from hqsam_base.errors import UserError
from hqsam_datasets.formats import manifest

ABOUT = "systems.json"
"""What the summary says of the systems, until it is written."""


OF_A_PART = (UserError, ValueError, RuntimeError)
"""What images and prompts cause, and torch with them: the next part may be free of it. A full disk is not."""


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


def part_path(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"part-{number:05d}.parquet"


class PartWriter:
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
            except OF_A_PART as error:
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
            except OF_A_PART as error:
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
