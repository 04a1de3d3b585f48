"""Random masks and COCO sets for the metrics tests: small, odd and full of ties."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np

from hqsam_base.rle import encode_rle

Json = dict[str, Any]


def random_masks(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """Masks made of a block with holes and specks; some empty, some full, most overlapping each other."""
    out = []
    for _ in range(count):
        mask = np.zeros(shape, bool)
        for _ in range(int(rng.integers(0, 4))):
            y, x = (int(rng.integers(0, side)) for side in shape)
            h, w = (int(rng.integers(1, side + 1)) for side in shape)
            mask[y : y + h, x : x + w] = rng.random() < 0.8
        if rng.random() < 0.3:
            mask ^= rng.random(shape) < 0.05
        if rng.random() < 0.05:
            mask[:] = True
        out.append(mask)
    return out


def _shift(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    moved = np.roll(mask, tuple(int(v) for v in rng.integers(-3, 4, 2)), (0, 1))
    return moved ^ (rng.random(mask.shape) < 0.01) if rng.random() < 0.3 else moved


def detections(
    rng: np.random.Generator, *, images: int = 5, categories: int = 3, ties: bool = True
) -> tuple[Json, list[Json]]:
    """A COCO annotation file and results for it, with crowds, duplicates, empty masks and equal scores."""
    sizes = [(int(rng.integers(20, 130)), int(rng.integers(20, 130))) for _ in range(images)]
    ids = rng.permutation(np.arange(10, 10 + images)).tolist()
    truth: Json = {
        "images": [
            {"id": i, "height": h, "width": w} for i, (h, w) in zip(ids, sizes, strict=True)
        ],
        "categories": [{"id": 7 * k + 3} for k in range(categories)],
        "annotations": [],
    }
    rows: list[Json] = []
    for image, size in zip(ids, sizes, strict=True):
        for mask in random_masks(rng, int(rng.integers(0, 5)), size):
            category = int(rng.integers(0, categories)) * 7 + 3
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image,
                    "category_id": category,
                    "iscrowd": int(rng.random() < 0.15),
                    "area": float(mask.sum()),
                    "segmentation": encode_rle(mask),
                }
            )
            for _ in range(int(rng.integers(0, 4))):
                other = category if rng.random() < 0.8 else int(rng.integers(0, categories)) * 7 + 3
                score = float(rng.integers(1, 6)) / 5 if ties else float(rng.random())
                code = encode_rle(_shift(rng, mask))
                rows.append(
                    {"image_id": image, "category_id": other, "score": score, "segmentation": code}
                )
    order = rng.permutation(len(rows))
    return truth, [rows[i] for i in order]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def label_png(labels: np.ndarray, depth: int, *, palette: bool) -> bytes:
    """A grey or palette PNG of any depth, with a chunk that is right for a palette only."""
    if depth == 16:
        return cv2.imencode(".png", labels.astype(np.uint16))[1].tobytes()
    bits = np.unpackbits(labels.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :].reshape(
        len(labels), -1
    )
    lines = b"".join(b"\0" + line.tobytes() for line in np.packbits(bits, axis=1))
    head = struct.pack(
        ">IIBBBBB", labels.shape[1], labels.shape[0], depth, 3 if palette else 0, 0, 0, 0
    )
    extra = (
        chunk(b"PLTE", bytes(range(3)) * (1 << depth)) + chunk(b"bKGD", b"\0") if palette else b""
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
