"""From a source's files to samples: one convention for images and masks, hashes, and a reject for whatever fails.

Rules, beyond those of `hqsam_datasets.formats.images` and `masks`:

- JPEG and PNG bytes of upright 8-bit RGB images are kept as they are (no generation loss);
  everything else is stored as upright RGB PNG. Masks that are 8-bit grey PNG with 255 as white are
  kept as well.
- A mask must have the size of its upright image. If the image is stored turned (EXIF) and the mask
  has the stored size, the mask is turned with it. Any other size is a reject, except for files that
  the data sheet lists and
  `drop_known_bad: false` keeps: their masks are stretched bilinearly.
- A mask without a pixel above 128 is a reject.
- Rejects are counted by reason and written down. If the number of samples is not the `expected`
  one, nothing is written and the error shows the rejects.

Shards are cut by the position of the pair before rejects, so that each can be made on its own: the
result does not depend on the number of workers, and memory holds one image at a time per worker. A
few of the last shards are made in parts and then joined: otherwise some processes would wait for as
long as a whole shard takes at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import xxhash
from numpy.typing import NDArray

from hqsam_base.atomic import atomic_folder, fsync_file, write_json, write_jsonl
from hqsam_base.errors import UserError
from hqsam_base.processes import Crew, keep_freed_memory, worker_count
from hqsam_base.progress import Progress
from hqsam_datasets import sources
from hqsam_datasets.formats import images, manifest
from hqsam_datasets.formats.image_files import ImageError, ImageProbe, probe
from hqsam_datasets.formats.manifest import Reject, SampleRow
from hqsam_datasets.formats.masks import FOREGROUND
from hqsam_datasets.formats.tar import TarReader
from hqsam_datasets.formats.tar_writer import ShardWriter
from hqsam_datasets.keys import distinct_keys
from hqsam_datasets.overlap.hashing import digest, hash_image
from hqsam_datasets.sample import mask_extension, sample_json
from hqsam_datasets.sources.base import (
    LoadedMask,
    Pair,
    Scan,
    Segmentation,
    SourceOptions,
    read_file,
)

VERSION = 3
_PREFIX = "samples"
MIN_SHARD = 256
MAX_SHARDS = 48
"""At most this many shards per source, of at least `MIN_SHARD` samples: DVC shall see tens of files."""
_PAIRS_WORTH_A_PROCESS = 400
_PARTS = 4
# One shard in this many is made in parts, at most one per process: the main process must join them.
_JOINED = 8
_SHOWN_REJECTS = 20


@dataclass(frozen=True, slots=True)
class _Task:
    """A shard's work, or a part of it, small enough to be sent to another process."""

    source: str
    folder: Path
    number: int
    keyed: tuple[tuple[str, Pair], ...]
    part: int | None = None
    last: bool = True
    """Whether the shard is complete with this part."""

    @property
    def prefix(self) -> str:
        """What the name of the archive begins with."""
        return _PREFIX if self.part is None else f"part{self.part}"


@dataclass(slots=True)
class _Done:
    """What came of one task: `archive` is the file's name, empty if every pair is a reject."""

    rows: list[SampleRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    archive: str = ""
    digest: str = ""


def normalise(
    source: str,
    *,
    root: Path,
    out: Path,
    options: SourceOptions,
    progress: Progress,
    workers: int | None = None,
) -> dict[str, Any]:
    """Turn the extracted tree of a training source into `data/samples/<source>/` (see docs/formats.md).

    Args:
        source: section of `sources` in params.yaml; it prefixes every key.
        root: extracted tree (`archive.extracted`).
        out: folder to write.
        options: the section's values.
        progress: called for every finished shard.
        workers: processes; None: as many as pay off (see `parallel.worker_count`). It changes no
            byte.

    Returns:
        The content of `normalise.json`.

    Raises:
        UserError: for an unknown source or layout, files without partner, or a number of samples
            that is not
            `options.expected`.
    """
    with atomic_folder(out) as folder, Crew(_make_shard, ahead=4) as crew:
        crew.prepare(workers or worker_count(options.expected or 0, worth=_PAIRS_WORTH_A_PROCESS))
        scan = sources.load(options.kind or source).scan(source, root, options)
        keys = distinct_keys(
            source, [pair.name for pair in scan.pairs], [pair.origin_image for pair in scan.pairs]
        )
        origins: dict[str, str] = {}
        for key, pair in zip(keys, scan.pairs, strict=True):
            if key in origins:
                problem = f"{origins[key]} and {pair.origin_image} give the same key {key}"
                cure = "rename one of the files"
                raise UserError(problem, file=pair.image, key=f"sources.{source}", cure=cure)
            origins[key] = pair.origin_image
        keyed = list(zip(keys, scan.pairs, strict=True))
        if options.limit is not None:
            # The smallest hashes of the keys: which are chosen does not depend on the other files.
            keyed.sort(key=lambda item: hashlib.sha256(item[0].encode()).digest())
            del keyed[options.limit :]
        keyed.sort(key=lambda item: item[0])
        crew.prepare(workers or worker_count(len(keyed), worth=_PAIRS_WORTH_A_PROCESS))
        rows = manifest.RowsWriter(folder / "manifest.parquet", "samples")
        rejects = list(scan.rejects)
        digests = []
        for done in _shards(crew, _tasks(source, folder, keyed, crew.workers)):
            if done.archive:
                fsync_file(folder / done.archive)  # now, while the others compute
            rows.extend(done.rows)
            rejects.extend(done.rejects)
            digests.append(done.digest)
            progress(len(rows) + len(rejects), len(keyed) + len(scan.rejects), f"{source}: samples")
        rejects.sort(key=lambda reject: (reject["origin"], reject["reason"]))
        _check_count(source, len(rows), rejects, options, scan)
        return _write_records(folder, source, rows, rejects, options, digests)


def _tasks(source: str, folder: Path, keyed: list[tuple[str, Pair]], workers: int) -> list[_Task]:
    """The shards in order; a few of the last ones in parts."""
    size = max(MIN_SHARD, -(-len(keyed) // MAX_SHARDS))
    whole = [
        _Task(source, folder, number, tuple(keyed[start : start + size]))
        for number, start in enumerate(range(0, len(keyed), size))
    ]
    if workers <= 1 or not whole:
        return whole
    first = len(whole) - min(workers, max(1, len(whole) // _JOINED))
    parts = []
    for task in whole[first:]:
        size = -(-len(task.keyed) // _PARTS)
        for part, start in enumerate(range(0, len(task.keyed), size)):
            end = start + size
            last = end >= len(task.keyed)
            parts.append(replace(task, keyed=task.keyed[start:end], part=part, last=last))
    return whole[:first] + parts


def _shards(crew: Crew[_Task, _Done], tasks: list[_Task]) -> Iterator[_Done]:
    """Yield what came of each shard, in order; parts are joined, and their files removed."""
    parts: list[_Done] = []
    for task, done in zip(tasks, crew.map(tasks), strict=True):
        if task.part is None:
            yield done
            continue
        parts.append(done)
        if not task.last:
            continue
        whole = _Done()
        with _writer(task, _PREFIX, sum(len(part.rows) for part in parts)) as writer:
            for part in parts:
                whole.rejects.extend(part.rejects)
                whole.rows.extend(part.rows)
                if part.archive:
                    with TarReader(task.folder / part.archive) as reader:
                        for (key, span), row in zip(reader.spans().items(), part.rows, strict=True):
                            row["shard"] = writer.append(key, reader.read_span(*span))
                    (task.folder / part.archive).unlink()
        _name(whole, writer)
        yield whole
        parts = []


def _writer(task: _Task, prefix: str, n: int) -> ShardWriter:
    return ShardWriter(
        task.folder,
        prefix=prefix,
        samples_per_shard=max(1, n),
        first_shard=task.number,
        hasher=xxhash.xxh3_128,
    )


def _name(done: _Done, writer: ShardWriter) -> None:
    for shard in writer.shards:  # one, or none if every pair is a reject
        done.archive, done.digest = shard.name, shard.digest


def _make_shard(task: _Task) -> _Done:
    cv2.setNumThreads(1)  # the processes are the parallelism
    keep_freed_memory()
    done = _Done()
    with _writer(task, task.prefix, len(task.keyed)) as writer:
        for key, pair in task.keyed:
            try:
                row, files, rejects = make_sample(task.source, key, pair)
            except ImageError as error:
                of_image = error.reason in ("unreadable_image", "unsupported_mode", "too_large")
                shared = isinstance(
                    pair.masks[0], Segmentation
                )  # one file for all: its name would not say which image
                reject = Reject(
                    source=task.source,
                    origin=pair.origin_image if of_image or shared else pair.origin_mask,
                    reason=error.reason,
                    detail=error.told,
                )
                done.rejects.append(reject)
                continue
            done.rejects.extend(rejects)
            row["shard"] = writer.add(key, files)
            done.rows.append(row)
    _name(done, writer)
    return done


def make_sample(
    source: str, key: str, pair: Pair
) -> tuple[SampleRow, dict[str, bytes], list[Reject]]:
    """Read, check and convert one pair.

    Returns:
        The manifest row (its `shard` still empty), the sample's files by extension, and a reject
        for each instance without a pixel, where others are left.

    Raises:
        ImageError: with the reject reason, if no sample comes of it.
    """
    data = read_file(pair.image, "unreadable_image")
    found = probe(data)
    rgb = images.decode_image(data, found=found)
    size = rgb.shape[0], rgb.shape[1]
    read = [
        _fit_mask(mask, size, found, pair)
        for reference in pair.masks
        for mask in reference.load(size)
    ]
    foreground = [int(np.count_nonzero(mask.mask > FOREGROUND)) for mask in read]
    masks = [mask for mask, n in zip(read, foreground, strict=True) if n]
    if not masks:
        raise ImageError("empty_mask", "no pixel above 128")
    rejects = [
        Reject(
            source=source,
            origin=pair.origin_mask,
            reason="empty_mask",
            detail=f"instance {i} of {pair.origin_image}",
        )
        for i, n in enumerate(foreground)
        if not n
    ]
    extension = "png"
    plain = found.orientation == 1 and found.mode == "RGB"
    if plain and found.format == "JPEG":
        extension, stored = "jpg", data
    elif plain and found.format == "PNG" and data[24] == 8:  # bit depth: 16-bit files are reduced
        stored = data
    else:
        stored = images.encode_png(rgb)
    record = sample_json(
        key=key,
        source=source,
        height=size[0],
        width=size[1],
        categories=tuple(mask.category for mask in masks),
        origin_image=pair.origin_image,
        origin_mask=pair.origin_mask,
    )
    files = {extension: stored, "json": record}
    for number, mask in enumerate(masks):
        files[mask_extension(number)] = mask.png or images.encode_png(mask.mask)
    return _row(source, key, pair, found, rgb, masks, max(foreground), stored), files, rejects


def _row(
    source: str,
    key: str,
    pair: Pair,
    found: ImageProbe,
    rgb: NDArray[np.uint8],
    masks: list[LoadedMask],
    foreground: int,
    stored: bytes,
) -> SampleRow:
    hashes = hash_image(rgb)
    return SampleRow(
        key=key,
        source=source,
        shard="",
        n_instances=len(masks),
        height=rgb.shape[0],
        width=rgb.shape[1],
        image_digest=digest(stored),
        pixel_digest=hashes.pixel_digest,
        mask_encoding=masks[0].encoding,
        image_mode=found.mode,
        exif_orientation=found.orientation,
        soft_fraction=max(mask.soft_fraction for mask in masks),
        fg_fraction=foreground / (rgb.shape[0] * rgb.shape[1]),
        origin_image=pair.origin_image,
        origin_mask=pair.origin_mask,
        pdq=hashes.pdq,
        pdq_quality=hashes.pdq_quality,
        tiles=hashes.tiles,
    )


def _fit_mask(
    loaded: LoadedMask, size: tuple[int, int], found: ImageProbe, pair: Pair
) -> LoadedMask:
    if loaded.mask.shape == size:
        return loaded
    if loaded.mask.shape == (found.height, found.width):
        mask = images.upright(loaded.mask, found.orientation)
    elif pair.known_bad is not None:
        mask = np.asarray(
            cv2.resize(loaded.mask, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8
        )
    else:
        (height, width), (mask_height, mask_width) = size, loaded.mask.shape
        detail = f"image {width}x{height}, mask {mask_width}x{mask_height}"
        raise ImageError("size_mismatch", detail)
    return replace(loaded, mask=mask, png=None)


def _write_records(
    folder: Path,
    source: str,
    rows: manifest.RowsWriter,
    rejects: list[Reject],
    options: SourceOptions,
    digests: list[str],
) -> dict[str, Any]:
    rows.write()
    write_jsonl(folder / "rejects.jsonl", rejects)
    result = {
        "version": VERSION,
        "source": source,
        "n_samples": len(rows),
        "n_rejects": len(rejects),
        "rejects_by_reason": manifest.count_by_reason(rejects),
        "n_expected": options.expected,
        "digest": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
    }
    write_json(folder / "normalise.json", result)
    return result


def _check_count(
    source: str, n_rows: int, rejects: list[Reject], options: SourceOptions, scan: Scan
) -> None:
    if n_rows and options.expected in (None, n_rows):
        return
    wanted = "at least 1" if options.expected is None else str(options.expected)
    reasons = (
        ", ".join(f"{reason}: {n}" for reason, n in manifest.count_by_reason(rejects).items())
        or "none"
    )
    lines = [f"{source} gives {n_rows} samples, expected {wanted}; rejects by reason: {reasons}"]
    # Unexpected rejects first, then those that the data sheet announces.
    announced = ("known_bad", "stray_file")
    shown = sorted(rejects, key=lambda reject: (reject["reason"] in announced, reject["origin"]))
    lines += [f"    {r['origin']}: {r['reason']} ({r['detail']})" for r in shown[:_SHOWN_REJECTS]]
    if len(rejects) > _SHOWN_REJECTS:
        lines.append(f"    and {len(rejects) - _SHOWN_REJECTS} more")
    if not options.drop_known_bad:
        lines.append(
            "    known bad files are kept where they can be samples: see `hqsam data sheet` for "
            "those that cannot"
        )
    if scan.unmatched_known_bad:
        lines.append(
            f"    known bad files that were not found: {', '.join(scan.unmatched_known_bad)}"
        )
    cure = "fetch the archive again if files are damaged; else correct this number, or list bad "
    cure += "stems under skip"
    if not n_rows:
        cure = "look at the data: `hqsam doctor data FOLDER` says what is wrong with it"
    key = f"sources.{source}" + (".expected" if options.expected is not None else "")
    raise UserError("\n".join(lines), file="params.yaml", key=key, cure=cure)
