"""Small trees of images and masks, and the stages run on them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from hqsam_datasets.prepare.normalise import normalise
from hqsam_datasets.sources.base import SourceOptions
from tests import FULL


def fault_count(few: int, many: int) -> int:
    """How often a fault is injected: `few` times, or `many` (what the project promises) with `make test-all`."""
    return many if FULL else few


def quiet(done: int, total: int, what: str) -> None:
    """Report nothing."""


def photo(seed: int, height: int = 40, width: int = 52) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def shape(height: int = 40, width: int = 52) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return mask


def encoded(array: np.ndarray, fmt: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, fmt, **options)
    return buffer.getvalue()


def jpeg(seed: int, **size: int) -> bytes:
    return encoded(photo(seed, **size), "JPEG", quality=90)


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def ecssd(root: Path, n: int = 6) -> Path:
    """A flat folder of `n` clean pairs, as in the repack."""
    files: dict[str, bytes] = {}
    for i in range(1, n + 1):
        files[f"cascade_psp/ecssd/{i:04d}.jpg"] = jpeg(i)
        files[f"cascade_psp/ecssd/{i:04d}.png"] = encoded(shape())
    return put(root, files)


def run(source: str, root: Path, out: Path, *, workers: int = 1, **options: Any) -> dict[str, Any]:
    """The normalise stage."""
    chosen = SourceOptions.model_validate({"archive": "a", **options})
    return normalise(source, root=root, out=out, options=chosen, progress=quiet, workers=workers)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
