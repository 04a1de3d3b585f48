"""Speed and memory of normalise + hash + shard, against just decoding the same JPEG and PNG files.

    python benchmarks/data/bench_normalise.py [--full] [--workers 2] [--json FILE]

Made-up sources of the sizes of the training sources, with soft masks; the last line sums up HQSeg-44K. `ratio` is the
decoder's time per pair divided by that of the two stages, on one core (CPU time); `speed_up` is wall time with one
process divided by wall time with `--workers`. Processes are spawned: with few pairs their start-up (about a second) shows.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hqsam_datasets.normalise import normalise
from hqsam_datasets.shards import ShardOptions, write_shards
from hqsam_datasets.sources.base import SourceOptions
from PIL import Image


def quiet(done: int, total: int, what: str) -> None:
    """Report nothing."""


def write_source(folder: Path, n: int, height: int, width: int) -> None:
    """`n` pairs with smooth random content, so that files have realistic sizes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    blobs = cv2.resize(rng.integers(0, 256, (8, 10), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    mask = np.asarray(cv2.GaussianBlur(np.where(blobs > 128, 255, 0).astype(np.uint8), (5, 5), 1))
    for i in range(n):
        for name, content, fmt in ((f"{i}.jpg", picture, "JPEG"), (f"{i}.png", mask, "PNG")):
            buffer = io.BytesIO()
            Image.fromarray(np.roll(content, 7 * i, axis=1)).save(buffer, fmt, quality=92)
            (folder / name).write_bytes(buffer.getvalue())


def decode_seconds(folder: Path) -> float:
    """CPU time of decoding every file once, the best of two."""
    cv2.setNumThreads(1)
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        for path in folder.iterdir():
            flags = cv2.IMREAD_COLOR_RGB if path.suffix == ".jpg" else cv2.IMREAD_UNCHANGED
            cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
        best = min(best, time.process_time() - start)
    return best


def stages(home: Path, workers: int) -> tuple[float, float, float]:
    """(wall, CPU of this process) of normalise, then CPU of shard."""
    out, wall, cpu = home / f"samples{workers}", time.perf_counter(), time.process_time()
    normalise("ecssd", root=home, out=out, options=SourceOptions(archive="a"), report=quiet, workers=workers)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    (home / "exclusions.jsonl").touch()
    shard = time.process_time()
    write_shards(
        samples={"ecssd": out}, exclusions=home / "exclusions.jsonl", out=home / "shards", options=ShardOptions(),
        report=quiet, workers=1,
    )  # fmt: skip
    return wall, cpu, time.process_time() - shard


def measure(n: int, height: int, width: int, workers: int) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_source(home / "ecssd", n, height, width)
        decode = decode_seconds(home / "ecssd")
        stages(home, 1)  # imports and caches
        wall, cpu, shard = stages(home, 1)
        parallel = stages(home, workers)[0] if workers > 1 else wall
    return {
        "pairs": n,
        "size": f"{width}x{height}",
        "decode_ms": round(1000 * decode / n, 3),
        "normalise_ms": round(1000 * cpu / n, 3),
        "shard_ms": round(1000 * shard / n, 3),
        "ratio": round(decode / (cpu + shard), 3),
        "workers": workers,
        "speed_up": round(wall / parallel, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


SIZES = {
    # what: (height, width, how many of HQSeg-44K's pairs are about that large, pairs to measure, and with --full)
    "FSS-1000": (224, 224, 10_000, 600, 20_000), "ECSSD, MSRA-10K, DUTS": (300, 400, 26_572, 600, 20_000),
    "ThinObject-5K": (1200, 1600, 4748, 24, 400), "DIS5K": (1700, 2560, 3000, 12, 200),
}  # fmt: skip


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole training set: processor minutes of decoding and of the stages, and their ratio."""
    columns = ("decode_ms", "normalise_ms", "shard_ms")
    decode, normalised, shard = (sum(row[c] * row["of_training_set"] for row in rows) / 60_000 for c in columns)
    return {
        "what": "HQSeg-44K", "decode_minutes": round(decode, 2), "stages_minutes": round(normalised + shard, 2),
        "ratio": round(decode / (normalised + shard), 3),
    }  # fmt: skip


def main() -> int:
    """Parse the arguments, measure, print; exit status 1 if the ratio over the training set is below 0.6."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for what, (height, width, count, few, many) in SIZES.items():
        row = measure(many if arguments.full else few, height, width, arguments.workers)
        rows.append({"what": what, "of_training_set": count, **row})
        print(json.dumps(rows[-1]), flush=True)
    rows.append(total(rows))
    print(json.dumps(rows[-1]))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return int(rows[-1]["ratio"] < 0.6)


if __name__ == "__main__":
    sys.exit(main())
