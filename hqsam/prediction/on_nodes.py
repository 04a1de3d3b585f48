"""The parts of a predict stage as tasks on a Ray cluster, with or without a common file system."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hqsam.prediction.part import ABOUT, Job, PartWriter, part_path
from hqsam.prediction.passes import BenchmarkImages, Figures
from hqsam_base import ray_files, ray_parts
from hqsam_base.digest import sha256_file

INPUTS = "inputs.json"
"""The digest of all that the parts depend on, in the folder of unfinished work."""

_mine: list[PartWriter] = []
"""The writer of this process, which Ray gives one part after the other."""


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


def on_ray(
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
        _mine[:] = [PartWriter(job, BenchmarkImages(job.benchmark), folder)]
    _mine[0].tell(folder)
    figures, failed = _mine[0].write(folder, {number: span}, lambda some: None)
    return next(iter(failed.values()), figures)
