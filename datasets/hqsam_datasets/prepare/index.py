"""The index stage: an evaluation set's images, ground truth and prompts in one schema (docs/formats.md).

Images pass one at a time and rows become Arrow columns in batches, so that memory stays small for
LVIS too.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hqsam_base import atomic, json_stream, rle
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
    Prompt,
    Truth,
)
from hqsam_datasets.benchmarks.detected import Detector, Kept, with_boxes
from hqsam_datasets.fetch.extract import NotHadError, missing_files
from hqsam_datasets.formats import manifest
from hqsam_datasets.formats.images import ImageError, decode_image, encode_png, probe
from hqsam_datasets.formats.tar_writer import ShardWriter
from hqsam_datasets.overlap.hashing import ImageHashes, hash_image
from hqsam_datasets.prompts.sets import GT_BOX, PREVIOUS, TRACKED, MaskSet, mask_set

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 4
Row = dict[str, Any]
BoolMask = npt.NDArray[np.bool_]
_SHARD_BYTES = 4 << 30
_BATCH = 32_768
_CROWD = "crowd"
_WORTH = 256
"""Images from which a second process is worth its start."""
_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}
"""Formats whose bytes are kept (MPO is a JPEG with a second picture behind it)."""
_SORT_BY: dict[manifest.TableName, tuple[str, ...]] = {
    "images": ("key",),
    "instances": ("key", "instance_id"),
    "prompts": ("key", "prompt_id"),
}


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
        loaded = _loaded(_in_order(content.items), n_workers)
        tables, images_digest = _write_images(
            loaded, folder, options, lambda done: progress(done, content.n_images, benchmark)
        )
        if not isinstance(adapter, _Nothing):
            _check_count(tables["images"].n_rows, options, benchmark)
        for name, rows in tables.items():
            rows.write(folder / f"{name}.parquet")
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
        summary |= _renamed(content)
        summary["images_digest"] = images_digest
        if embedded:
            layout = adapter.dataset_version
            summary["dataset_version"] = f"embedded sample in the layout of {layout}"
        if kept is not None:
            summary["detector"] = {**kept.head, "without": kept.without}
        if content.left_out:
            summary["left_out"] = dict(sorted(content.left_out.items()))
        atomic.write_json(folder / "index.json", summary)
    return summary


class _Rows:
    """Rows of one table, turned into Arrow columns batch by batch; the values of its id column must be unique."""

    def __init__(self, name: manifest.TableName, unique: str) -> None:
        self.counts: Counter[str] = Counter()
        self.n_rows = 0
        self._name: manifest.TableName = name
        self._unique = unique
        self._pending: list[Row] = []
        self._chunks: list[pa.Table] = []

    def add(self, row: Row, *, count_as: str = "") -> None:
        self.counts[count_as] += 1
        self.n_rows += 1
        self._pending.append(row)
        if len(self._pending) >= _BATCH:
            self._flush()

    def write(self, path: Path) -> None:
        import pyarrow as pa

        self._flush()
        table = pa.concat_tables(self._chunks)
        self._check_unique(table, path)
        manifest.write_table(
            path, table, schema=manifest.schema(self._name), sort_by=_SORT_BY[self._name]
        )

    def _flush(self) -> None:
        import pyarrow as pa

        self._chunks.append(pa.Table.from_pylist(self._pending, schema=manifest.schema(self._name)))
        self._pending = []

    def _check_unique(self, table: pa.Table, path: Path) -> None:
        import pyarrow.compute as pc

        counts = pc.value_counts(table.column(self._unique))
        double = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(double):
            raise UserError(
                f"{self._unique} occurs {double[0]['counts'].as_py()} times",
                file=path.name,
                key=str(double[0]["values"].as_py()),
                cure="rename the files, or fix the ids of the annotation file",
            )


def _write_images(
    loaded: Iterator[tuple[Item, _Image]],
    folder: Path,
    options: BenchmarkOptions,
    progress: Callable[[int], None],
) -> tuple[dict[manifest.TableName, _Rows], str]:
    """Write the tars and collect the tables' rows; also gives a digest of the pixels of all images."""
    images, instances, prompts = (
        _Rows("images", "key"),
        _Rows("instances", "instance_id"),
        _Rows("prompts", "prompt_id"),
    )
    size = options.images_per_shard
    found = (mask_set(name, box_side=options.box_side) for name in options.prompt_sets)
    drawn = [_Drawn(one, options.seed) for one in found if one is not None]
    pixels = hashlib.sha256()
    with ShardWriter(
        folder, prefix="images", samples_per_shard=size, max_bytes=_SHARD_BYTES
    ) as writer:
        for done, (item, image) in enumerate(loaded, start=1):
            shard = writer.add(item.key, {image.extension: image.data})
            images.add(_image_row(item, f"{item.key}.{image.extension}", shard, image.hashes))
            pixels.update(f"{item.key} {image.hashes.pixel_digest}\n".encode())
            for truth in item.truths:
                instances.add(_instance_row(item, truth), count_as=_CROWD if truth.iscrowd else "")
            own = {prompt.prompt_set for prompt in item.prompts}
            if options.box_side is not None:
                own.discard(GT_BOX)
            for prompt in item.prompts:
                if prompt.prompt_set in own.intersection(options.prompt_sets):
                    prompts.add(_prompt_row(item, prompt), count_as=prompt.prompt_set)
            for one in drawn:
                # What the adapter gives is taken as it is.
                for row in one.rows(item) if one.name not in own else ():
                    prompts.add(row, count_as=one.name)
            progress(done)
    tables: dict[manifest.TableName, _Rows] = {
        "images": images,
        "instances": instances,
        "prompts": prompts,
    }
    return tables, pixels.hexdigest()[:16]


def _in_order(items: Iterator[Item]) -> Iterator[Item]:
    """The items; keys must ascend, so that tars and tables have one order (and no key twice)."""
    last = ""
    for item in items:
        if item.key <= last:
            problem = (
                "two images give the same key"
                if item.key == last
                else f"the key comes after {last}"
            )
            raise UserError(problem, file=item.path, key=item.key, cure="rename one of the files")
        last = item.key
        yield item


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
    """Each item with its image, in order; the items themselves stay in this process."""
    waiting: deque[Item] = deque()

    def jobs() -> Iterator[_Job]:
        for item in items:
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


def _image_row(item: Item, member: str, shard: str, hashes: ImageHashes) -> Row:
    return {
        "key": item.key,
        "member": member,
        "shard": shard,
        "height": item.height,
        "width": item.width,
        "image_id": item.image_id,
        "video": item.video,
        "video_id": item.video_id,
        "frame": item.frame,
        "pixel_digest": hashes.pixel_digest,
        "pdq": hashes.pdq,
        "pdq_quality": hashes.pdq_quality,
        "tiles": hashes.tiles,
    }


def _instance_row(item: Item, truth: Truth) -> Row:
    return {
        "instance_id": truth.instance_id,
        "key": item.key,
        "image_id": item.image_id,
        "category_id": truth.category_id,
        "track_id": truth.track_id,
        "iscrowd": int(truth.iscrowd),
        "area": truth.area,
        "rle": truth.rle,
        "height": item.height,
        "width": item.width,
    }


class _Drawn:
    """A prompt set that is made from the masks: each prompt from (seed, set, image, object, trial) alone; crowds get none.

    Args:
        chosen: the set.
        seed: of what it draws.
    """

    def __init__(self, chosen: MaskSet, seed: int) -> None:
        self.name = chosen.name
        self._set, self._seed = chosen, seed
        self._before: dict[tuple[str | None, int | None], BoolMask] = {}

    def rows(self, item: Item) -> Iterator[Row]:
        """Yield the prompts of an image; those of a video come in the order of its frames."""
        for truth in (truth for truth in item.truths if not truth.iscrowd):
            mask = rle.decode(truth.rle, height=item.height, width=item.width)
            earlier = self.name in (PREVIOUS, TRACKED)
            shown = self._earlier(item, truth, mask) if earlier else mask
            for trial in range(self._set.per_object):
                found = self._set.draw(shown, self._generator(item, truth, trial))
                if found is not None:
                    columns = self._set.kind.columns(found)
                    yield self._head(item, truth, trial) | columns

    def _earlier(self, item: Item, truth: Truth, mask: BoolMask) -> BoolMask:
        """Return the object's mask in the last frame that showed it, or where its own masks are followed in the first."""
        key = item.video, truth.track_id
        for stale in [known for known in self._before if known[0] != item.video]:
            del self._before[stale]
        before = self._before.get(key, mask)
        if mask.any() and (self.name == PREVIOUS or key not in self._before):
            self._before[key] = mask
        return before

    def _generator(self, item: Item, truth: Truth, trial: int) -> np.random.Generator:
        drawn_for = f"{self._seed}/{self.name}/{item.key}/{truth.instance_id}"
        # The first trial has the number that sets of one trial always had.
        number = hashlib.sha256((drawn_for + (f"/{trial}" if trial else "")).encode()).digest()
        return np.random.default_rng(int.from_bytes(number[:8]))

    def _head(self, item: Item, truth: Truth, trial: int) -> Row:
        ending = f"~{trial + 1}" if self._set.per_object > 1 or self._set.clicks else ""
        return {
            "prompt_id": f"{truth.instance_id}-{self.name}{ending}",
            "key": item.key,
            "prompt_set": self.name,
            "height": item.height,
            "width": item.width,
            "score": None,
            "category_id": truth.category_id,
            "track_id": truth.track_id,
            "instance_id": truth.instance_id,
        }


def _prompt_row(item: Item, prompt: Prompt) -> Row:
    x0, y0, x1, y1 = prompt.box if prompt.box is not None else (None, None, None, None)
    return {
        "prompt_id": prompt.prompt_id,
        "key": item.key,
        "prompt_set": prompt.prompt_set,
        "kind": "box" if prompt.box is not None else "mask",
        "x0": x0,
        "y0": y0,
        "x1": x1,
        "y1": y1,
        "points": None,
        "labels": None,
        "rle": prompt.rle,
        "height": item.height,
        "width": item.width,
        "score": prompt.score,
        "category_id": prompt.category_id,
        "track_id": prompt.track_id,
        "instance_id": prompt.instance_id,
    }


def _check_count(n_images: int, options: BenchmarkOptions, name: str) -> None:
    if options.expected_images is not None and n_images != options.expected_images:
        raise UserError(
            f"{name} has {n_images} images, expected {options.expected_images}",
            file="params.yaml",
            key=f"benchmarks.{name}.index.expected_images",
            cure="fetch the archive again, or correct the number if this is another release",
        )


def _summary(
    adapter: Benchmark,
    folder: Path,
    tables: dict[manifest.TableName, _Rows],
    options: BenchmarkOptions,
    missing: dict[str, str],
) -> Row:
    counts = tables["prompts"].counts
    objects = tables["instances"].counts
    if adapter.kind in ("coco", "ytvis") and objects and set(objects) == {_CROWD}:
        raise UserError(
            f"all {objects[_CROWD]} annotations of {adapter.name} are crowd regions, which do not count",
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
        "n_images": tables["images"].n_rows,
        "n_instances": tables["instances"].n_rows,
        "n_prompts": {name: counts[name] for name in sorted(options.prompt_sets) if counts[name]},
        "prompt_sets": sorted(name for name in options.prompt_sets if counts[name]),
        "digest": _digest(folder),
        **({"trials": trials} if trials else {}),
        **({"clicks": clicks} if clicks else {}),
        **({"tracked": [TRACKED]} if counts[TRACKED] else {}),
        **(
            {"missing": {"prompt_sets": sorted(empty), "files": missing}}
            if empty or not tables["images"].n_rows
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
            total.update(
                f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return total.hexdigest()
