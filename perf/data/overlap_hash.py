"""Speed of `hash_image` against pure JPEG decoding, one core, at the sizes of the training sources.

    python perf/data/overlap_hash.py [--json FILE]

`ratio` is the images per second of hashing over those of decoding alone. The target is 0.7 for the
training set as a whole (typical sizes of its sources), which the last line sums up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import default_rng

from hqsam_datasets.overlap.hashing import digest, hash_image
from perf.data.overlap_recall import dead_leaves

SIZES = {
    # what: (height, width, how many of HQSeg-44K's images are about that large)
    "FSS-1000": (224, 224, 10_000),
    "ECSSD, MSRA-10K, DUTS": (300, 400, 26_572),
    "COCO": (480, 640, 0),
    "1 megapixel": (853, 1280, 0),
    "ThinObject-5K": (1200, 1600, 4748),
    "DIS5K": (1700, 2560, 3000),
    "DIS5K, largest": (2667, 4000, 0),
}


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
    for name, (height, width, count) in SIZES.items():
        data = cv2.imencode(".jpg", photograph(height, width), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
        decode = seconds(lambda data=data: cv2.imdecode(data, cv2.IMREAD_COLOR))
        hashing = seconds(lambda image=image: hash_image(image))
        digesting = seconds(lambda image=image: digest(image.data))
        rows.append(
            {
                "what": name,
                "of_training_set": count,
                "height": height,
                "width": width,
                "decode_ms": round(1000 * decode, 3),
                "hash_ms": round(1000 * hashing, 3),
                "digest_ms": round(1000 * digesting, 3),
                "ratio": round(decode / hashing, 3),
            }
        )
    return rows


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole training set: minutes of decoding and of hashing, and their ratio."""
    decode, hashing = (
        sum(row[k] * row["of_training_set"] for row in rows) / 60_000
        for k in ("decode_ms", "hash_ms")
    )
    return {
        "what": "HQSeg-44K",
        "decode_minutes": round(decode, 2),
        "hash_minutes": round(hashing, 2),
        "ratio": round(decode / hashing, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure()
    rows.append(total(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps(row))
    return int(rows[-1]["ratio"] < 0.7)


if __name__ == "__main__":
    sys.exit(main())
