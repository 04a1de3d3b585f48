"""Training and evaluation folders in the pipeline's own layout, from images in memory; for benchmarks and tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_base import atomic, rle
from hqsam_datasets.formats import manifest
from hqsam_datasets.formats.images import encode_png
from hqsam_datasets.formats.tar_writer import ShardWriter
from hqsam_datasets.overlap.hashing import hash_image

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """A named image uint8 [H, W, 3] RGB with a foreground bool [H, W]; stored as JPEG of that quality, or PNG if 0."""

    key: str
    image: Image
    mask: Mask
    quality: int = 0


def encoded(picture: Picture) -> tuple[str, bytes, Image]:
    """Extension, file bytes, and the pixels that a reader will see."""
    if not picture.quality:
        return "png", encode_png(picture.image), picture.image
    bgr = cv2.cvtColor(np.ascontiguousarray(picture.image), cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, picture.quality])[1]
    seen = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return "jpg", data.tobytes(), np.asarray(seen, np.uint8)


def write_source(folder: Path, name: str, pictures: Iterable[Picture]) -> Path:
    """Write `data/samples/<name>`."""
    rows: list[dict[str, Any]] = []
    with atomic.atomic_folder(folder) as tmp:
        with ShardWriter(tmp, prefix="samples", samples_per_shard=256) as writer:
            for picture in pictures:
                extension, data, seen = encoded(picture)
                mask = encode_png(picture.mask.astype(np.uint8) * 255)
                shard = writer.add(picture.key, {extension: data, "mask.png": mask, "json": b"{}"})
                rows.append(_sample_row(name, shard, picture, seen))
        manifest.write_rows(tmp / "manifest.parquet", "samples", rows)
        counts = {
            "n_samples": len(rows),
            "n_rejects": 0,
            "rejects_by_reason": {},
            "n_expected": len(rows),
        }
        atomic.write_json(
            tmp / "normalise.json", {"version": 1, "source": name, "digest": "", **counts}
        )
    return folder


def write_benchmark(folder: Path, name: str, pictures: Iterable[Picture]) -> Path:
    """Write `data/benchmarks/<name>` of kind `masks`, with one ground-truth box prompt per image."""
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    with atomic.atomic_folder(folder) as tmp:
        with ShardWriter(tmp, prefix="images", samples_per_shard=256) as writer:
            for number, picture in enumerate(pictures, start=1):
                extension, data, seen = encoded(picture)
                shard = writer.add(picture.key, {extension: data})
                images.append(
                    _image_row(shard, f"{picture.key}.{extension}", number, picture, seen)
                )
                instances.append(_instance_row(number, picture))
                prompts.append(_prompt_row(picture))
        for table, rows in (("images", images), ("instances", instances), ("prompts", prompts)):
            manifest.write_rows(tmp / f"{table}.parquet", table, rows)  # type: ignore[arg-type]
        counts = {
            "n_images": len(images),
            "n_instances": len(images),
            "n_prompts": {"gt_box": len(prompts)},
        }
        atomic.write_json(
            tmp / "index.json",
            {"version": 1, "benchmark": name, "kind": "masks", "digest": "", **counts},
        )
    return folder


def quiet(done: int, total: int, what: str) -> None:
    """A progress report that says nothing."""


def _hashes(image: Image) -> dict[str, Any]:
    found = hash_image(image)
    return {
        "pixel_digest": found.pixel_digest,
        "pdq": found.pdq,
        "pdq_quality": found.pdq_quality,
        "tiles": found.tiles,
    }


def _sample_row(source: str, shard: str, picture: Picture, seen: Image) -> dict[str, Any]:
    height, width = seen.shape[:2]
    return {
        "key": picture.key,
        "source": source,
        "shard": shard,
        "n_instances": 1,
        "height": height,
        "width": width,
        "image_digest": "0" * 32,
        "mask_encoding": "0/255",
        "image_mode": "RGB",
        "exif_orientation": 1,
        "soft_fraction": 0.0,
        "fg_fraction": float(picture.mask.mean()),
        "origin_image": f"{picture.key}.jpg",
        "origin_mask": f"{picture.key}.png",
        **_hashes(seen),
    }


def _image_row(
    shard: str, member: str, number: int, picture: Picture, seen: Image
) -> dict[str, Any]:
    height, width = seen.shape[:2]
    return {
        "key": picture.key,
        "member": member,
        "shard": shard,
        "height": height,
        "width": width,
        "image_id": number,
        "video": None,
        "video_id": None,
        "frame": None,
        **_hashes(seen),
    }


def _instance_row(number: int, picture: Picture) -> dict[str, Any]:
    height, width = picture.mask.shape
    return {
        "instance_id": f"{picture.key}_0",
        "key": picture.key,
        "image_id": number,
        "category_id": 1,
        "track_id": None,
        "iscrowd": 0,
        "area": float(picture.mask.sum()),
        "rle": rle.encode(picture.mask),
        "height": height,
        "width": width,
    }


def _prompt_row(picture: Picture) -> dict[str, Any]:
    height, width = picture.mask.shape
    x0, y0, x1, y1 = rle.tight_box(picture.mask) or (0.0, 0.0, width - 1.0, height - 1.0)
    return {
        "prompt_id": f"{picture.key}_0",
        "key": picture.key,
        "prompt_set": "gt_box",
        "kind": "box",
        "x0": x0,
        "y0": y0,
        "x1": x1,
        "y1": y1,
        "points": None,
        "labels": None,
        "rle": None,
        "height": height,
        "width": width,
        "score": None,
        "category_id": 1,
        "track_id": None,
        "instance_id": f"{picture.key}_0",
    }


def resized(image: Image, mask: Mask, scale: float) -> tuple[Image, Mask]:
    """Image and mask scaled by `scale`."""
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=how)
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8), small > 127


def cropped(image: Image, mask: Mask, rng: np.random.Generator, side: float) -> tuple[Image, Mask]:
    """A window of `side` of the height and of the width, anywhere."""
    height, width = round(image.shape[0] * side), round(image.shape[1] * side)
    y, x = (
        int(rng.integers(image.shape[0] - height + 1)),
        int(rng.integers(image.shape[1] - width + 1)),
    )
    return image[y : y + height, x : x + width], mask[y : y + height, x : x + width]


def keys(pictures: Sequence[Picture]) -> set[str]:
    """The keys of some pictures."""
    return {picture.key for picture in pictures}
