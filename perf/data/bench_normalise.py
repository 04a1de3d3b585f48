"""Speed and memory of normalise + hash + shard, against just decoding the same JPEG and PNG files.

    python perf/data/bench_normalise.py [--full|--quick] [--rounds 3] [--json FILE]
    python perf/data/bench_normalise.py --speed-up 12000 [--workers 2] [--rounds 3]

Made-up sources of the sizes of the training sources, with soft masks; the last line sums up
HQSeg-44K. `ratio` is the decoder's time per pair divided by that of the two stages, on one core
(CPU time), each the best of rounds in turns. Baseline: OpenCV, which the stages themselves use and
which is the quickest decoder at hand for both formats.

`--speed-up`: wall time of the stages with one process over that with `--workers`, start of the
processes included, on that many pairs of 400x300, the quickest of rounds in turns; the same for
just decoding, which is what the machine itself allows; and `of_free_cores`, what the processor
times say of a machine with nothing else to do: the time of one process over that of the main
process and of the servers that the workers are forked from, which nothing overlaps at worst, plus
an equal share of the workers'.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from hqsam_base.processes import Crew
from hqsam_datasets.prepare import normalise, shards
from hqsam_datasets.sources.base import SourceOptions
from perf.table import Row, finish


def quiet(done: int, total: int, what: str) -> None:
    """Report nothing."""


def write_source(folder: Path, n: int, height: int, width: int) -> None:
    """`n` pairs with smooth random content, so that files have realistic sizes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    blobs = cv2.resize(
        rng.integers(0, 256, (8, 10), dtype=np.uint8),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    mask = np.asarray(cv2.GaussianBlur(np.where(blobs > 128, 255, 0).astype(np.uint8), (5, 5), 1))
    for i in range(n):
        for name, content, fmt in ((f"{i}.jpg", picture, "JPEG"), (f"{i}.png", mask, "PNG")):
            buffer = io.BytesIO()
            Image.fromarray(np.roll(content, 7 * i, axis=1)).save(buffer, fmt, quality=92)
            (folder / name).write_bytes(buffer.getvalue())


def link_source(home: Path, n: int, height: int, width: int, *, different: int = 500) -> Path:
    """`n` pairs, hard links to `different` different ones: a large source that needs no time and no disk. Gives its root."""
    write_source(home / "few", min(n, different), height, width)
    (home / "many" / "ecssd").mkdir(parents=True)
    for i in range(n):
        for suffix in (".jpg", ".png"):
            os.link(
                home / "few" / f"{i % different}{suffix}",
                home / "many" / "ecssd" / f"{i:06d}{suffix}",
            )
    return home / "many"


def decode(path: Path) -> int:
    """Read and decode one file; its height."""
    cv2.setNumThreads(1)
    flags = cv2.IMREAD_COLOR_RGB if path.suffix == ".jpg" else cv2.IMREAD_UNCHANGED
    return int(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags).shape[0])


def decode_seconds(folder: Path) -> float:
    """CPU time of decoding every file once."""
    start = time.process_time()
    for path in folder.iterdir():
        decode(path)
    return time.process_time() - start


def server_seconds() -> float:
    """Processor time of the servers that the processes of both stages are forked from: the imports, mostly."""
    seconds = 0.0
    for function in (normalise._make_shard, shards._write_shard):
        with Crew[Any, Any](function) as crew:
            seconds -= sum(os.times()[2:4])
            crew.prepare(2)
        seconds += sum(os.times()[2:4])
    return seconds


def stages(root: Path, out: Path, workers: int) -> tuple[float, float]:
    """Run normalise, then shard, on the source in `root`; CPU time of this process for each."""
    start = time.process_time()
    normalise.normalise(
        "ecssd",
        root=root,
        out=out / "samples",
        options=SourceOptions(archive="a"),
        progress=quiet,
        workers=workers,
    )
    between = time.process_time()
    (out / "exclusions.jsonl").touch()
    shards.write_shards(
        samples={"ecssd": out / "samples"},
        exclusions=out / "exclusions.jsonl",
        out=out / "shards",
        options=shards.ShardOptions(),
        progress=quiet,
        workers=workers,
    )
    return between - start, time.process_time() - between


def measure(n: int, height: int, width: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_source(home / "ecssd", n, height, width)
        laps = [
            (decode_seconds(home / "ecssd"), *stages(home, home, 1)) for _ in range(rounds + 1)
        ][1:]
    decoded = min(lap[0] for lap in laps)
    normalised, sharded = min((lap[1:] for lap in laps), key=sum)
    return {
        "pairs": n,
        "size": f"{width}x{height}",
        "decode_ms": round(1000 * decoded / n, 3),
        "normalise_ms": round(1000 * normalised / n, 3),
        "shard_ms": round(1000 * sharded / n, 3),
        "ratio": round(decoded / (normalised + sharded), 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def lap(work: Callable[[], Any]) -> tuple[float, float, float]:
    """Wall time of one call, processor time of this process and of those that it started and ended."""
    start, before = time.perf_counter(), os.times()
    work()
    wall, after = time.perf_counter() - start, os.times()
    children = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return wall, after.user + after.system - before.user - before.system, children


def speed_up(n: int, workers: int, rounds: int) -> dict[str, Any]:
    """Wall time of one process over that of `workers`: the stages, and just decoding; the quickest of `rounds` in turn."""
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(workers) as pool:
        root = link_source(Path(name), n, 300, 400)
        files = sorted((root / "ecssd").iterdir())
        stages(link_source(Path(name) / "warm", 300, 300, 400), Path(name) / "warm", 1)  # imports
        list(pool.map(decode, files[:1000], chunksize=50))
        laps = [
            (
                *(
                    lap(lambda r=r, k=k: stages(root, Path(name) / f"{r}-{k}", k))
                    for k in (1, workers)
                ),
                lap(lambda: list(map(decode, files))),
                lap(lambda: list(pool.map(decode, files, chunksize=50))),
            )
            for r in range(rounds)
        ]
    one, several, alone, together = (min(column) for column in zip(*laps, strict=True))
    server = server_seconds()
    return {
        "pairs": n,
        "workers": workers,
        "rounds": rounds,
        "wall_s": [round(one[0], 2), round(several[0], 2)],
        "cpu_s": {
            "one": round(one[1], 2),
            "main": round(several[1], 2),
            "servers": round(server, 2),
            "workers": round(several[2] - server, 2),
        },
        "speed_up": round(one[0] / several[0], 2),
        "speed_up_of_decoding": round(alone[0] / together[0], 2),
        "speed_up_of_rounds": [round(first[0] / both[0], 2) for first, both, *_ in laps],
        "of_free_cores": round(one[1] / (several[1] + server + (several[2] - server) / workers), 2),
        "peak_mb_of_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


SIZES = {
    # what: (height, width, how many of HQSeg-44K's pairs are about that large, pairs to measure,
    # and with --full)
    "FSS-1000": (224, 224, 10_000, 600, 20_000),
    "ECSSD, MSRA-10K, DUTS": (300, 400, 26_572, 600, 20_000),
    "ThinObject-5K": (1200, 1600, 4748, 100, 400),
    "DIS5K": (1700, 2560, 3000, 50, 200),
}


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole training set: processor minutes of decoding and of the stages, and their ratio."""
    columns = ("decode_ms", "normalise_ms", "shard_ms")
    decode, normalised, shard = (
        sum(row[c] * row["of_training_set"] for row in rows) / 60_000 for c in columns
    )
    return {
        "what": "HQSeg-44K",
        "decode_minutes": round(decode, 2),
        "stages_minutes": round(normalised + shard, 2),
        "ratio": round(decode / (normalised + shard), 3),
    }


def main() -> int:
    """Parse the arguments, measure, print; exit status 1 if a target is missed: a ratio of 0.6, nine tenths of a linear speed-up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a third of the pairs, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speed-up", type=int, metavar="PAIRS")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.speed_up:
        result = speed_up(arguments.speed_up, arguments.workers, arguments.rounds)
        print(json.dumps(result))
        return int(max(result["speed_up"], result["of_free_cores"]) < 0.9 * arguments.workers)
    rows: list[dict[str, Any]] = []
    for what, (height, width, count, few, many) in SIZES.items():
        pairs = many if arguments.full else few // 3 if arguments.quick else few
        row = measure(pairs, height, width, 1 if arguments.quick else arguments.rounds)
        rows.append({"what": what, "of_training_set": count, **row})
        print(json.dumps(rows[-1]), flush=True)
    whole = total(rows)
    row = Row.at_least(
        "normalise and shard against decoding the pairs, sizes as HQSeg-44K has them",
        whole["ratio"],
        0.6,
        peer=f"decoding: {whole['decode_minutes']:.2f} min",
        now=f"{whole['stages_minutes']:.2f} min",
    )
    return finish([row], arguments.json, sizes=rows, total=whole)


if __name__ == "__main__":
    sys.exit(main())
