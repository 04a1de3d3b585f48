"""Speed of `hash_image` against pure JPEG decoding, one core, at the sizes of the training sources.

    python perf/data/overlap_hash.py [--json FILE] [--quick]

`ratio` is the images per second of hashing over those of decoding alone. The target is 0.7 for the
training set as a whole (typical sizes of its sources), which the last line sums up. `--quick` takes
these sizes alone.
"""

from __future__ import annotations

import argparse
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
from perf.table import Row, finish

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


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """One row per size."""
    cv2.setNumThreads(1)
    rows = []
    for name, (height, width, count) in SIZES.items():
        if quick and not count:
            continue
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
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(quick=arguments.quick)
    whole = total(rows)
    table = [
        Row.at_least(
            f"hashing against decoding JPEGs, {row['width']}x{row['height']}",
            row["ratio"],
            0,
            peer=f"decoding: {row['decode_ms']:.2f} ms",
            now=f"{row['hash_ms']:.2f} ms",
        )
        for row in rows
    ]
    table.append(
        Row.at_least(
            "hashing against decoding JPEGs, sizes as HQSeg-44K has them",
            whole["ratio"],
            0.7,
            peer=f"decoding: {whole['decode_minutes']:.2f} min",
            now=f"{whole['hash_minutes']:.2f} min",
        )
    )
    return finish(table, arguments.json, sizes=rows, total=whole)


if __name__ == "__main__":
    sys.exit(main())
