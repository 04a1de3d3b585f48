"""The quick reader of JPEG headers against Pillow: the same answer, or none."""

from __future__ import annotations

import contextlib
import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hqsam_datasets.formats import image_files
from hqsam_datasets.formats.image_files import ImageError, ImageProbe
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.jpeg_header import plain_jpeg_size
from tests.datasets.trees import fault_count

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
TURNED = Image.Exif()
TURNED[0x0112] = 6


def jpeg(mode: str = "RGB", fmt: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    PHOTO.convert(mode).save(buffer, fmt, **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> ImageProbe:
    with image_files.opened(data) as image:
        return image_files._probe(image, data)


PLAIN = [
    jpeg(),
    jpeg(progressive=True),
    jpeg(optimize=True, quality=30),
    jpeg(subsampling=0),
    jpeg(comment=b"hello"),
    jpeg(icc_profile=b"x" * 700),
    jpeg(restart_marker_rows=1),
    jpeg(dpi=(72, 72)),
]
SPECIAL = [
    jpeg("L"),
    jpeg("CMYK"),
    jpeg(exif=TURNED),
    jpeg(xmp=b'<x tiff:Orientation="6"/>'),
    jpeg(fmt="MPO", save_all=True, append_images=[PHOTO]),
    b"",
    b"\xff\xd8",
    b"\xff\xd8\xff",
    b"GIF89a",
    jpeg()[:300],
]


@pytest.mark.parametrize("data", PLAIN)
def test_everyday_files_are_read_as_pillow_reads_them(data: bytes) -> None:
    assert plain_jpeg_size(data) == (40, 56)
    assert image_files.probe(data) == by_pillow(data) == ImageProbe("JPEG", "RGB", 1, 40, 56)


@pytest.mark.parametrize("data", SPECIAL)
def test_anything_else_is_left_to_pillow(data: bytes) -> None:
    assert plain_jpeg_size(data) is None


def outcome(data: bytes, found: ImageProbe) -> tuple[Any, ...]:
    """The pixels, or why there are none."""
    try:
        pixels = decode_image(data, found=found)
    except ImageError as error:
        return (error.reason,)
    return pixels.shape, pixels.tobytes()


def test_damaged_files_meet_the_same_fate() -> None:
    rng = random.Random(0)
    read = 0
    for _ in range(fault_count(400, 4000)):
        data = bytearray(rng.choice(PLAIN))
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(min(len(data), rng.choice([24, 700, 10_000])))] = rng.randrange(256)
        damaged = bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
        size = plain_jpeg_size(damaged)
        if size is None:
            continue
        read += 1
        quick = ImageProbe("JPEG", "RGB", 1, *size)
        with contextlib.suppress(ImageError):
            slow = by_pillow(damaged)
            assert slow == quick or outcome(damaged, quick) == outcome(damaged, slow)
            continue
        assert outcome(damaged, quick) == ("unreadable_image",)
    assert read > 50
