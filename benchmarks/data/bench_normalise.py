"""Speed and memory of normalise + hash + shard, against just decoding the same JPEG and PNG files.

    python benchmarks/data/bench_normalise.py [--small 600] [--large 12] [--full] [--workers 2] [--json FILE]

Two made-up sources: small pictures (400 x 300, as DUTS, ECSSD and MSRA-10K) and large ones (3000 x 2000, as DIS5K),
with soft masks. `ratio` is the decoder's time per pair divided by that of the two stages, on one core (CPU time);
`speed-up` is wall time with one process divided by wall time with `--workers`. Processes are spawned: with few pairs
their start-up (about a second) shows.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
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


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", type=int, help="small pairs; 600, or 20,000 with --full")
    parser.add_argument("--large", type=int, help="large pairs; 12, or 200 with --full")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    small = arguments.small if arguments.small is not None else (20_000 if arguments.full else 600)
    large = arguments.large if arguments.large is not None else (200 if arguments.full else 12)
    for n, height, width in ((small, 300, 400), (large, 2000, 3000)):
        if n:
            rows.append(measure(n, height, width, arguments.workers))
            print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
