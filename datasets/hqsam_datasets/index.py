"""The index stage: an evaluation set's images, ground truth and prompts in one schema (docs/formats.md)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hqsam_datasets import atomic, benchmarks, manifest
from hqsam_datasets.benchmarks.base import Benchmark, BenchmarkOptions, Item, Prompt, Truth
from hqsam_datasets.errors import UserError
from hqsam_datasets.hashing import hash_image
from hqsam_datasets.images import ImageError, decode_image, encode_png, probe
from hqsam_datasets.tario import ShardWriter

VERSION = 1
Row = dict[str, Any]
Report = Callable[[int, int, str], None]


def index(benchmark: str, *, root: Path, out: Path, options: BenchmarkOptions, seed: int, report: Report) -> Row:
    """Write ``data/benchmarks/<benchmark>/``.

    Args:
        benchmark: Name of the adapter.
        root: The extracted archive.
        out: Folder to write, replaced as a whole.
        options: ``benchmarks.<name>.index``.
        seed: Kept for adapters whose prompts are drawn; none of the present ones draws.
        report: Progress.

    Returns:
        What ``index.json`` holds.

    Raises:
        UserError: the layout is wrong, an image does not match its ground truth, or the count is not the expected one.
    """
    adapter = benchmarks.load(benchmark)
    content = adapter.read(root)
    with atomic.atomic_folder(out) as folder:
        rows = _write_images(content.items, folder, options, report, benchmark)
        _check_count(rows["images"], options, benchmark)
        tables: tuple[manifest.TableName, ...] = ("images", "instances", "prompts")
        for name in tables:
            manifest.write_rows(folder / f"{name}.parquet", name, rows[name])
        if content.ground_truth is not None:
            atomic.write_json(folder / "gt.json", content.ground_truth)
        summary = _summary(adapter, folder, rows, options)
        atomic.write_json(folder / "index.json", summary)
    return summary


def _write_images(
    items: Any, folder: Path, options: BenchmarkOptions, report: Report, name: str
) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {"images": [], "instances": [], "prompts": []}
    total = options.expected_images or 0
    with ShardWriter(folder, prefix="images", samples_per_shard=options.images_per_shard) as writer:
        for done, item in enumerate(items, start=1):
            data, extension, hashes = _image(item)
            shard = writer.add(item.key, {extension: data})
            rows["images"].append(_image_row(item, f"{item.key}.{extension}", shard, hashes))
            rows["instances"].extend(_instance_row(item, t) for t in item.truths)
            rows["prompts"].extend(_prompt_row(item, p) for p in item.prompts if p.prompt_set in options.prompt_sets)
            report(done, max(total, done), name)
    return rows


def _image(item: Item) -> tuple[bytes, str, Any]:
    """File bytes, extension, hashes; a turned photograph whose ground truth was drawn unturned is stored so."""
    try:
        data = item.path.read_bytes()
        extension = {"JPEG": "jpg", "PNG": "png"}.get(probe(data).format, "png")
        pixels = decode_image(data)
        if pixels.shape[:2] != (item.height, item.width):
            pixels, extension = decode_image(data, apply_exif=False), "png"
            data = encode_png(pixels)
    except FileNotFoundError:
        raise UserError(
            "the image does not exist", file=item.path, key=item.key, cure="fetch the archive again"
        ) from None
    except ImageError as error:
        raise UserError(f"the image cannot be used: {error}", file=item.path, key=item.key) from error
    if pixels.shape[:2] != (item.height, item.width):
        raise UserError(
            f"the image is {pixels.shape[1]}x{pixels.shape[0]}, its ground truth {item.width}x{item.height}",
            file=item.path,
            key=item.key,
            cure="fetch the archive again; evaluation skips nothing",
        )
    return data, extension, hash_image(pixels)


def _image_row(item: Item, member: str, shard: str, hashes: Any) -> Row:
    return {
        "key": item.key, "member": member, "shard": shard, "height": item.height, "width": item.width,
        "image_id": item.image_id, "video": item.video, "video_id": item.video_id, "frame": item.frame,
        "pixel_sha256": hashes.pixel_sha256, "pdq": hashes.pdq, "pdq_quality": hashes.pdq_quality,
        "tiles": hashes.tiles,
    }  # fmt: skip


def _instance_row(item: Item, truth: Truth) -> Row:
    return {
        "instance_id": truth.instance_id, "key": item.key, "image_id": item.image_id, "category_id": truth.category_id,
        "track_id": truth.track_id, "iscrowd": int(truth.iscrowd), "area": truth.area, "rle": truth.rle,
        "height": item.height, "width": item.width,
    }  # fmt: skip


def _prompt_row(item: Item, prompt: Prompt) -> Row:
    x0, y0, x1, y1 = prompt.box if prompt.box is not None else (None, None, None, None)
    return {
        "prompt_id": prompt.prompt_id, "key": item.key, "prompt_set": prompt.prompt_set,
        "kind": "box" if prompt.box is not None else "mask", "x0": x0, "y0": y0, "x1": x1, "y1": y1,
        "points": None, "labels": None, "rle": prompt.rle, "height": item.height, "width": item.width,
        "score": prompt.score, "category_id": prompt.category_id, "track_id": prompt.track_id,
        "instance_id": prompt.instance_id,
    }  # fmt: skip


def _check_count(images: list[Row], options: BenchmarkOptions, name: str) -> None:
    if options.expected_images is not None and len(images) != options.expected_images:
        raise UserError(
            f"{name} has {len(images)} images, expected {options.expected_images}",
            file="params.yaml",
            key=f"benchmarks.{name}.index.expected_images",
            cure="fetch the archive again, or correct the number if this is another release",
        )


def _summary(adapter: Benchmark, folder: Path, rows: dict[str, list[Row]], options: BenchmarkOptions) -> Row:
    counts = Counter(row["prompt_set"] for row in rows["prompts"])
    return {
        "version": VERSION,
        "benchmark": adapter.name,
        "kind": adapter.kind,
        "class_agnostic": adapter.class_agnostic,
        "dataset_version": adapter.dataset_version,
        "n_images": len(rows["images"]),
        "n_instances": len(rows["instances"]),
        "n_prompts": {name: counts.get(name, 0) for name in sorted(options.prompt_sets)},
        "prompt_sets": sorted(options.prompt_sets),
        "digest": _digest(folder),
    }


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
