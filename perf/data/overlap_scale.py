"""Time of the overlap search at full scale: 44,000 training against 60,000 evaluation images, after hashing.

The fingerprints are synthetic but keep the distribution of real ones: each image takes the local
features of a rendered scene with a fifth of their bits and all positions changed; its PDQ bits are
random. Some training images are given a noisy copy of an evaluation image's features, to see that
the search still finds them among 5.8 million.

    python perf/data/overlap_scale.py [--train 44000] [--eval 60000] [--slice 512] [--full] [--json
    FILE]

With `--slice N` only the first N training images are searched; the time of the search (not that of
building the index) is scaled up. `--full` searches all. Processor time is given beside wall time:
on a busy machine only the former means something.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng

from hqsam_datasets.embedded.scenes import EVAL_FAMILIES, TRAIN_FAMILIES
from hqsam_datasets.overlap.candidates import pdq_candidates
from hqsam_datasets.overlap.hashing import hash_image
from hqsam_datasets.overlap.tiles import TileTable, tile_candidates
from perf.data.overlap_recall import scene

SCENES = 200


def base_features() -> TileTable:
    """Local features of rendered scenes."""
    images = [scene((7, i), EVAL_FAMILIES if i % 2 else TRAIN_FAMILIES)[0] for i in range(SCENES)]
    sizes = np.array([image.shape[:2] for image in images], np.int64)
    return TileTable.of([hash_image(image).tiles for image in images], sizes[:, 0], sizes[:, 1])


def synthetic(base: TileTable, n_images: int, rng: Generator) -> TileTable:
    """Features of `n_images` made-up images, 96 each."""
    pick = rng.integers(len(base.image), size=96 * n_images)
    # An OR of AND-ed random bytes sets each bit with probability 3/16.
    noise = [rng.integers(0, 256, (len(pick), base.bits.shape[1]), np.uint8) for _ in range(4)]
    flips = noise[0] & noise[1] & (noise[2] | noise[3])
    return TileTable(
        bits=base.bits[pick] ^ flips,
        x=rng.uniform(0, 256, len(pick)),
        y=rng.uniform(0, 192, len(pick)),
        level=base.level[pick],
        image=np.repeat(np.arange(n_images), 96),
        frame=np.tile([256.0, 192.0], (n_images, 1)),
    )


def plant(train: TileTable, other: TileTable, n_planted: int, rng: Generator) -> None:
    """Give every training image k < `n_planted` 12 features of evaluation image 7 k, a tenth of their bits flipped."""
    for k in range(n_planted):
        to, at = 7 * k * 96 + np.arange(12), k * 96 + np.arange(12)
        shape = (12, train.bits.shape[1], 8)
        flips = np.packbits((rng.random(shape) < 0.1).astype(np.uint8), axis=2)[..., 0]
        train.bits[at] = other.bits[to] ^ flips
        train.x[at], train.y[at], train.level[at] = (
            other.x[to] * 0.9 + 5,
            other.y[to] * 0.9 + 5,
            other.level[to],
        )


def measure(n_train: int, n_eval: int, n_slice: int) -> dict[str, Any]:
    """Seconds of both searches, scaled to all training images, and the share of planted pairs found."""
    rng = default_rng(0)
    n_run = min(n_slice, n_train)
    base = base_features()
    other, train = synthetic(base, n_eval, rng), synthetic(base, n_run, rng)
    n_planted = min(200, n_run, n_eval // 7)
    plant(train, other, n_planted, rng)
    clock = _Clock()
    index = next(iter(tile_candidates(train.rows(0, 0), other, min_tiles=3)), None)
    assert index is not None
    build = clock.lap()
    found = [c for _, batch in tile_candidates(train, other, min_tiles=3) for c in batch]
    tiles = clock.lap()
    pdq_other = rng.integers(0, 256, (n_eval, 32), np.uint8)
    pdq_train = rng.integers(0, 256, (n_run, 32), np.uint8)
    pdq_train[:n_planted] = pdq_other[:n_planted]
    clock.lap()
    whole = pdq_candidates(pdq_train, pdq_other, radius=31)
    pdq = clock.lap()
    hits = {(c.train, c.other) for c in found}
    factor = n_train / n_run
    wall, cpu = (build[k] + (tiles[k] - build[k] + pdq[k]) * factor for k in (0, 1))
    return {
        "n_train": n_train,
        "n_eval": n_eval,
        "n_searched": n_run,
        "wall_minutes": round(wall / 60, 2),
        "cpu_minutes": round(cpu / 60, 2),
        "index_cpu_s": round(build[1], 1),
        "tile_candidates_per_image": round(len(found) / n_run, 3),
        "pdq_candidates": len(whole),
        "planted_found": sum((k, 7 * k) in hits for k in range(n_planted)) / max(1, n_planted),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


class _Clock:
    """Wall and processor seconds since the last lap."""

    def __init__(self) -> None:
        self._last = (time.perf_counter(), time.process_time())

    def lap(self) -> tuple[float, float]:
        now = (time.perf_counter(), time.process_time())
        last, self._last = self._last, now
        return now[0] - last[0], now[1] - last[1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=44_000)
    parser.add_argument("--eval", type=int, default=60_000)
    parser.add_argument("--slice", type=int, default=512)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    n_slice = arguments.train if arguments.full else arguments.slice
    result = measure(arguments.train, arguments.eval, n_slice)
    text = json.dumps(result, indent=1)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    # Two cores for 20 minutes.
    return int(result["cpu_minutes"] > 40 or result["planted_found"] < 0.95)


if __name__ == "__main__":
    sys.exit(main())
