"""Speed of the training loader's reading and decoding, against just decoding the same files, with two workers.

    python perf/data/bench_loader.py [--small 600] [--large 12] [--workers 2] [--rounds 7] [--json
    FILE]

Shards are written from made-up pairs of the sizes of the training sources. Baseline: the files'
bytes are in memory, as many threads as the loader has decode them with OpenCV. Loader:
`TrainingSet.sample` through `prefetch`: shard reads, key checks, mask encoding, validation. Both
are run in turns; `ratio` is the baseline's time over the loader's, the median of the rounds: of
processor time, which is what means something on a busy machine, and of wall time. Target: 0.85.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hqsam.training.loader import TrainingSet, prefetch
from hqsam_datasets.formats import tar
from hqsam_datasets.formats.tar import read_index
from hqsam_datasets.prepare import augment, normalise, shards
from hqsam_datasets.sources.base import SourceOptions
from perf.data.bench_normalise import quiet, write_source
from perf.table import Row, finish


def training_set(home: Path, n: int, height: int, width: int) -> TrainingSet:
    """`n` pairs as shards with one view each."""
    write_source(home / "ecssd", n, height, width)
    options = SourceOptions(archive="a")
    normalise.normalise(
        "ecssd", root=home, out=home / "samples", options=options, progress=quiet, workers=1
    )
    (home / "exclusions.jsonl").touch()
    shards.write_shards(
        samples={"ecssd": home / "samples"},
        exclusions=home / "exclusions.jsonl",
        out=home / "shards",
        options=shards.ShardOptions(),
        progress=quiet,
        workers=1,
    )
    one_view = augment.AugmentOptions(image_size=64, mask_input_size=32, views=1)
    augment.write_prompts(
        shards=home / "shards",
        out=home / "prompts",
        options=one_view,
        seed=0,
        progress=quiet,
        workers=1,
    )
    return TrainingSet(shards=home / "shards", prompts=home / "prompts")


def files_of(folder: Path) -> list[list[bytes]]:
    """Image and mask bytes of every sample."""
    paths = [folder / shard["name"] for shard in read_index(folder)["shards"]]
    found = (files for path in paths for _, files in tar.iterate_samples(path))
    return [[data for extension, data in files.items() if extension != "json"] for files in found]


def decode(files: Iterable[bytes]) -> int:
    """Decode some files."""
    flags = cv2.IMREAD_COLOR_RGB, cv2.IMREAD_UNCHANGED
    return sum(
        cv2.imdecode(np.frombuffer(data, np.uint8), flags[data[:4] == b"\x89PNG"]).shape[0]
        for data in files
    )


def clock() -> tuple[float, float]:
    """Processor time of all threads, and wall time."""
    return time.process_time(), time.perf_counter()


def baseline_seconds(files: list[list[bytes]], workers: int) -> tuple[float, float]:
    """Processor and wall time of decoding everything once in `workers` threads."""
    start = clock()
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(decode, files):
            pass
    return clock()[0] - start[0], clock()[1] - start[1]


def loader_seconds(data: TrainingSet, workers: int) -> tuple[float, float]:
    """Processor and wall time of every sample once through the loader."""
    start = clock()
    for _ in prefetch(data.sample, range(len(data)), workers=workers, ahead=2 * workers):
        pass
    return clock()[0] - start[0], clock()[1] - start[1]


def measure(n: int, height: int, width: int, workers: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        data = training_set(Path(name), n, height, width)
        files = files_of(Path(name) / "shards")
        laps = [
            (baseline_seconds(files, workers), loader_seconds(data, workers))
            for _ in range(rounds + 1)
        ][1:]
        data.close()
    cpu, wall = ([(base[k], loader[k]) for base, loader in laps] for k in (0, 1))
    return {
        "samples": n,
        "size": f"{width}x{height}",
        "workers": workers,
        "decode_ms": round(1000 * statistics.median(base for base, _ in cpu) / n, 3),
        "loader_ms": round(1000 * statistics.median(loader for _, loader in cpu) / n, 3),
        "ratio": round(statistics.median(base / loader for base, loader in cpu), 3),
        "wall_ratio": round(statistics.median(base / loader for base, loader in wall), 3),
    }


def main() -> int:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", type=int, default=600)
    parser.add_argument("--large", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = ((arguments.small, 300, 400), (arguments.large, 2000, 3000))
    rows = [
        measure(n, height, width, arguments.workers, arguments.rounds)
        for n, height, width in sizes
        if n
    ]
    table = [
        Row.at_least(
            f"loader against decoding, {row['size']}, {row['workers']} threads",
            row["ratio"],
            0.85,
            peer=f"decoding: {row['decode_ms']:.2f} ms",
            now=f"{row['loader_ms']:.2f} ms",
        )
        for row in rows
    ]
    return finish(table, arguments.json, sizes=rows)


if __name__ == "__main__":
    sys.exit(main())
