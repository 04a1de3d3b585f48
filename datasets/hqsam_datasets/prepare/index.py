"""The index stage: an evaluation set's images, ground truth and prompts in one schema (docs/formats.md).

Images pass one at a time, so that memory stays small for LVIS too.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hqsam_base import atomic, json_stream
from hqsam_base.errors import UserError
from hqsam_base.processes import ordered_map, worker_count
from hqsam_base.progress import Progress
from hqsam_datasets import benchmarks
from hqsam_datasets.benchmarks.base import (
    Benchmark,
    BenchmarkOptions,
    Content,
    Item,
    Kind,
)
from hqsam_datasets.benchmarks.detected import Detector, Kept, with_boxes
from hqsam_datasets.fetch.tree import NotHadError, missing_files
from hqsam_datasets.formats.image_files import ImageError, probe
from hqsam_datasets.formats.images import decode_image, encode_png
from hqsam_datasets.formats.tar_writer import ShardWriter
from hqsam_datasets.overlap.hashing import ImageHashes, hash_image
from hqsam_datasets.prepare.index_tables import CROWD, Row, Tables
from hqsam_datasets.prompts.sets import TRACKED, mask_set

VERSION = 5
_SHARD_BYTES = 4 << 30
_WORTH = 256
"""Images from which a second process is worth its start."""
_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}
"""Formats whose bytes are kept (MPO is a JPEG with a second picture behind it)."""


def index(
    benchmark: str,
    *,
    root: Path,
    out: Path,
    options: BenchmarkOptions,
    progress: Progress,
    kind: str | None = None,
    workers: int | None = None,
    embedded: bool = False,
    detector: Detector | None = None,
    detections: Path = Path("detections"),
) -> Row:
    """Write ``data/benchmarks/<benchmark>/``.

    Args:
        benchmark: Section of `benchmarks` in params.yaml; it prefixes the keys of most sets.
        root: The extracted archive.
        out: Folder to write, replaced as a whole.
        options: ``benchmarks.<name>.index``.
        progress: told how far the work is.
        kind: Name of the adapter; None: that of the section.
        workers: Processes that decode and hash; None: as many as pay off (`parallel.worker_count`).
            Changes no byte.
        embedded: The archive is the embedded sample, not the published set: `dataset_version` says
            so.
        detector: What `options.prompts` describes, opened when the first image needs it.
        detections: Folder in which its boxes are kept.

    Returns:
        What ``index.json`` holds.

    Raises:
        UserError: the layout is wrong, an image does not match its ground truth, a key or id occurs
            twice, a prompt set is empty, or the count is not the expected one. Nothing is written
            then.

    What depends on optional files that are unavailable is left out, and `index.json` says so under
    "missing": prompt sets, or, where images or ground truth need those files, everything.
    """
    adapter = benchmarks.of_section(benchmark, kind or benchmark, options)
    try:
        content = adapter.read(root)
        kept = None
        if detector is not None:
            kept = Kept(
                detector,
                _categories(content, benchmark),
                any_class=adapter.class_agnostic,
                parent=detections,
                name=benchmark,
            )
            content = with_boxes(content, kept, adapter.kind, _stored_pixels)
        return _index(adapter, content, root, out, options, progress, workers, embedded, kept)
    except NotHadError:
        nothing = _Nothing.of(adapter)
        return _index(
            nothing, nothing.read(root), root, out, options, progress, workers, embedded, None
        )


def _categories(content: Content, benchmark: str) -> dict[int, str]:
    """Ids and names of a set's categories; of a set without any, one for all objects."""
    key = f"benchmarks.{benchmark}.index.prompts"
    rows: Any = (content.ground_truth or {}).get("categories") or [{"id": 1, "name": "object"}]
    cure = "correct the annotation file, or use detections of your own"
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError("`categories` is no list of records", key=key, cure=cure)
    for row in rows:
        if not isinstance(row.get("name"), str) or not row["name"].strip():
            problem = f"category {row.get('id')} has no name, by which a detector could find it"
            raise UserError(problem, key=key, cure=cure)
        if type(row.get("id")) is not int:
            raise UserError(
                f"the category {row['name']} has no whole number as id", key=key, cure=cure
            )
    return {row["id"]: row["name"] for row in rows}


def _stored_pixels(item: Item) -> tuple[bytes, npt.NDArray[np.uint8]]:
    data, _, pixels = _read(_Job(item.path, item.key, item.height, item.width))
    return data, pixels


@dataclass
class _Nothing:
    """A benchmark none of whose files are available."""

    name: str
    kind: Kind
    dataset_version: str
    class_agnostic: bool

    @classmethod
    def of(cls, adapter: Benchmark) -> _Nothing:
        return cls(adapter.name, adapter.kind, adapter.dataset_version, adapter.class_agnostic)

    def read(self, root: Path) -> Content:
        return Content(items=iter(()), n_images=0)


def _index(
    adapter: Benchmark,
    content: Content,
    root: Path,
    out: Path,
    options: BenchmarkOptions,
    progress: Progress,
    workers: int | None,
    embedded: bool,
    kept: Kept | None,
) -> Row:
    benchmark = adapter.name
    with atomic.atomic_folder(out) as folder:
        n_workers = worker_count(content.n_images, worth=_WORTH) if workers is None else workers
        tables, pixels = _write_images(
            _loaded(content.items, n_workers),
            folder,
            options,
            lambda done: progress(done, content.n_images, benchmark),
        )
        n_images, expected = tables.images.n_rows, options.expected_images
        if not isinstance(adapter, _Nothing) and expected not in (None, n_images):
            raise UserError(
                f"{benchmark} has {n_images} images, expected {expected}",
                file="params.yaml",
                key=f"benchmarks.{benchmark}.index.expected_images",
                cure="fetch the archive again, or correct the number if this is another release",
            )
        tables.write(folder)
        if content.ground_truth is not None:
            # Compact: with one number a line, LVIS's polygons would take three times the room.
            path = folder / "gt.json"
            try:
                json_stream.write_packed(path, content.ground_truth)
            except ValueError as error:
                problem = f"the annotation file holds what JSON does not have: {error}"
                raise UserError(
                    problem, key=f"benchmarks.{benchmark}", cure="fetch the archive again"
                ) from error
        summary = _summary(adapter, folder, tables, options, missing_files(root))
        summary |= {**_renamed(content), "images_digest": pixels}
        if embedded:
            layout = adapter.dataset_version
            summary["dataset_version"] = f"embedded sample in the layout of {layout}"
        if kept is not None:
            summary["detector"] = {**kept.head, "without": kept.without}
        if content.left_out:
            summary["left_out"] = dict(sorted(content.left_out.items()))
        atomic.write_json(folder / "index.json", summary)
    return summary


def _write_images(
    loaded: Iterator[tuple[Item, _Image]],
    folder: Path,
    options: BenchmarkOptions,
    progress: Callable[[int], None],
) -> tuple[Tables, str]:
    """Write the tars and collect the tables' rows; also gives a digest of the pixels of all images."""
    tables = Tables(options)
    pixels = hashlib.sha256()
    size = options.images_per_shard
    with ShardWriter(
        folder, prefix="images", samples_per_shard=size, max_bytes=_SHARD_BYTES
    ) as writer:
        for done, (item, image) in enumerate(loaded, start=1):
            shard = writer.add(item.key, {image.extension: image.data})
            member = f"{item.key}.{image.extension}"
            tables.add(item, member=member, shard=shard, hashes=image.hashes)
            pixels.update(f"{item.key} {image.hashes.pixel_digest}\n".encode())
            progress(done)
    return tables, pixels.hexdigest()[:16]


@dataclass(frozen=True)
class _Job:
    """What a worker needs to read one image."""

    path: Path
    key: str
    height: int
    width: int


@dataclass(frozen=True)
class _Image:
    """File bytes as they are stored, their extension, and the hashes of the pixels."""

    data: bytes
    extension: str
    hashes: ImageHashes


def _loaded(items: Iterator[Item], workers: int) -> Iterator[tuple[Item, _Image]]:
    """Each item with its image, in order; the items themselves stay in this process.

    Keys must ascend, so that tars and tables have one order (and no key twice).
    """
    waiting: deque[Item] = deque()

    def jobs() -> Iterator[_Job]:
        last = ""
        for item in items:
            if item.key <= last:
                problem = (
                    "two images give the same key"
                    if item.key == last
                    else f"the key comes after {last}"
                )
                cure = "rename one of the files"
                raise UserError(problem, file=item.path, key=item.key, cure=cure)
            last = item.key
            waiting.append(item)
            yield _Job(item.path, item.key, item.height, item.width)

    for image in ordered_map(_load, jobs(), workers=workers):
        yield waiting.popleft(), image


def _load(job: _Job) -> _Image:
    """Read, decode and hash one image."""
    data, extension, pixels = _read(job)
    return _Image(data if extension else encode_png(pixels), extension or "png", hash_image(pixels))


def _read(job: _Job) -> tuple[bytes, str | None, npt.NDArray[np.uint8]]:
    """The bytes of an image, the extension under which they are kept (None: they are not), and its pixels.

    The published bytes are kept, except for a turned photograph whose ground truth was drawn on the
    unturned pixels: it is stored as PNG without the tag, so that every later reader gets what the
    ground truth shows.
    """
    try:
        data = job.path.read_bytes()
        extension = _EXTENSIONS.get(probe(data).format)
        pixels = decode_image(data)
        if pixels.shape[:2] != (job.height, job.width):
            pixels, extension = decode_image(data, apply_exif=False), None
    except FileNotFoundError:
        cure = "fetch the archive again"
        raise UserError("the image does not exist", file=job.path, key=job.key, cure=cure) from None
    except ImageError as error:
        cure = error.cure or "fetch the archive again, or fix the file"
        cure += "; of own data, list it under index.skip"
        raise UserError(
            f"the image cannot be used: {error.reason}: {error.detail}",
            file=job.path,
            key=job.key,
            cure=cure,
        ) from error
    if pixels.shape[:2] != (job.height, job.width):
        raise UserError(
            f"the image is {pixels.shape[1]}x{pixels.shape[0]}, its ground truth "
            f"{job.width}x{job.height}",
            file=job.path,
            key=job.key,
            cure="fetch the archive again; evaluation skips nothing",
        )
    return data, extension, pixels


def _summary(
    adapter: Benchmark,
    folder: Path,
    tables: Tables,
    options: BenchmarkOptions,
    missing: dict[str, str],
) -> Row:
    counts, objects = tables.prompts.counts, tables.instances.counts
    if adapter.kind in ("coco", "ytvis") and objects and set(objects) == {CROWD}:
        raise UserError(
            f"all {objects[CROWD]} annotations of {adapter.name} are crowd regions, which do not count",
            file="gt.json",
            key="iscrowd",
            cure="set iscrowd to 0 if they are objects: CVAT writes brush masks as crowds, Rectlabel "
            "all run-length masks",
        )
    empty = [name for name in options.prompt_sets if not counts[name]]
    if empty and not missing:
        raise UserError(
            f"{adapter.name} has no prompts of the set {empty[0]}",
            file="params.yaml",
            key=f"benchmarks.{adapter.name}.index.prompt_sets",
            cure="name the sets that this benchmark has (its data sheet says which); one that a "
            "file holds is empty if the file is",
        )
    found = [mask_set(name) for name in options.prompt_sets if counts[name]]
    trials = {one.name: one.trials for one in found if one is not None and one.trials > 1}
    clicks = {one.name: one.clicks for one in found if one is not None and one.clicks}
    return {
        "version": VERSION,
        "benchmark": adapter.name,
        "kind": adapter.kind,
        "class_agnostic": adapter.class_agnostic,
        "dataset_version": adapter.dataset_version,
        "n_images": tables.images.n_rows,
        "n_instances": tables.instances.n_rows,
        "n_prompts": {name: counts[name] for name in sorted(options.prompt_sets) if counts[name]},
        "prompt_sets": sorted(name for name in options.prompt_sets if counts[name]),
        "digest": _digest(folder),
        **({"trials": trials} if trials else {}),
        **({"clicks": clicks} if clicks else {}),
        **({"tracked": [TRACKED]} if counts[TRACKED] else {}),
        **(
            {"missing": {"prompt_sets": sorted(empty), "files": missing}}
            if empty or not tables.images.n_rows
            else {}
        ),
    }


def _renamed(content: Content) -> Row:
    """Say so where ids that are names became numbers; `gt.json` has both."""
    truth = content.ground_truth or {}
    records = [record for name in ("images", "categories") for record in truth.get(name) or ()]
    return {"original_ids": True} if any("original_id" in record for record in records) else {}


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name}\0{content}\n".encode())
    return total.hexdigest()
