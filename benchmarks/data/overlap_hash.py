"""Speed of `hash_image` against pure JPEG decoding, one core, at the sizes of the training sources.

    python benchmarks/data/overlap_hash.py [--json FILE]

`ratio` is the images per second of hashing over those of decoding alone: the target is 0.7.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hqsam_datasets.hashing import hash_image
from numpy.random import default_rng

from benchmarks.data.overlap_recall import dead_leaves

SIZES = {
    "FSS-1000": (224, 224), "ECSSD, MSRA-10K, DUTS": (300, 400), "COCO": (480, 640), "1 megapixel": (853, 1280),
    "ThinObject-5K, DIS5K": (1700, 2560), "DIS5K, largest": (2667, 4000),
}  # fmt: skip


def photograph(height: int, width: int) -> Any:
    """Something with the detail and the noise of a photograph of that size."""
    rng = default_rng((height, width))
    image = dead_leaves(rng, min(height, 600), min(width, 800))[0]
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def seconds(work: Callable[[], Any], *, at_least: float = 0.4) -> float:
    """Median processor seconds of one call."""
    work()
    laps: list[float] = []
    while sum(laps) < at_least or len(laps) < 5:
        start = time.process_time()
        work()
        laps.append(time.process_time() - start)
    return float(np.median(laps))


def measure() -> list[dict[str, Any]]:
    """One row per size."""
    cv2.setNumThreads(1)
    rows = []
    for name, (height, width) in SIZES.items():
        data = cv2.imencode(".jpg", photograph(height, width), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
        decode = seconds(lambda data=data: cv2.imdecode(data, cv2.IMREAD_COLOR))
        hashing = seconds(lambda image=image: hash_image(image))
        digest = seconds(lambda image=image: hashlib.sha256(image.data))
        rows.append(
            {
                "what": name, "height": height, "width": width, "decode_ms": round(1000 * decode, 3),
                "hash_ms": round(1000 * hashing, 3), "sha256_ms": round(1000 * digest, 3),
                "ratio": round(decode / hashing, 3),
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure()
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
