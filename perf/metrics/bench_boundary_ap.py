"""Boundary AP: this package against the original algorithm, faster-coco-eval and vernier, in one interleaved run.

    python -m perf metrics/boundary_ap [--full|--quick]

Without --full a quarter of the images. faster-coco-eval does not run on the large pictures: minutes
a round. Every program has one thread; time is processor time, its processes' included. All must give
the same AP, AP50 and AP75.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from perf.metrics.programs import (
    Program,
    faster_coco_eval,
    original,
    ours,
    prepare_vernier,
    vernier,
)
from perf.metrics.workloads import Workload, make_coco
from perf.table import Row, finish

# Ratios that the project promises: (workload, dilation ratio) -> program -> how many times our time
# its own must be. faster-coco-eval's work grows with the dilation: the promise about it is at the
# default ratio.
TARGETS = {
    ("coco", 0.02): {"original": 8.0, "faster-coco-eval": 20.0, "vernier": 1.0},
    ("coco", 0.01): {"original": 8.0, "vernier": 1.0},
    ("big", 0.02): {"original": 10.0, "vernier": 1.0},
}
SIZES = {"coco": "480x640", "big": "2400x3200"}
# Rounding of the last sum may differ between programs.
EQUAL = 1e-9


def available(workload: str) -> dict[str, Program]:
    """The programs that can run here."""
    out: dict[str, Program] = {"ours": ours(1), "original": original}
    if importlib.util.find_spec("vernier"):
        out["vernier"] = vernier
    if importlib.util.find_spec("faster_coco_eval") and workload == "coco":
        out["faster-coco-eval"] = faster_coco_eval
    return out


def clock() -> float:
    """Processor seconds of this process and of its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def run(work: Workload, ratio: float, *, rounds: int) -> tuple[list[Row], dict[str, Any]]:
    """Times every program `rounds` times in turn (slow ones once) and compares their numbers."""
    programs = available(work.name)
    if "vernier" in programs:
        prepare_vernier(work.dt)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    numbers = {}
    for turn in range(rounds):
        for name, program in programs.items():
            if turn and min(seconds[name]) > 20:
                continue
            begin = clock()
            numbers[name] = program(work.gt, work.dt, ratio)
            seconds[name].append(clock() - begin)
    best = {name: min(times) for name, times in seconds.items()}
    worst = max(
        abs(a - b)
        for values in numbers.values()
        for a, b in zip(values, numbers["original"], strict=True)
    )
    return table(work, ratio, best, worst), {"seconds": seconds, "numbers": numbers}


def table(work: Workload, ratio: float, best: dict[str, float], worst: float) -> list[Row]:
    """The rows of one workload: the ratios to our time, then the largest difference of an AP."""
    where = f"{work.n_images} images {SIZES[work.name]}, {work.n_masks:,} masks, ratio {ratio}"
    rows = [
        Row.at_least(
            f"boundary AP, {where}: as fast as {name}",
            value / best["ours"],
            TARGETS[work.name, ratio].get(name, 0.0),
            peer=f"{name}: {value:.2f} s",
            now=f"{best['ours']:.3f} s",
        )
        for name, value in best.items()
        if name != "ours"
    ]
    what = f"boundary AP, {where}: largest difference of an AP"
    return [*rows, Row.at_most(what, worst, EQUAL, "")]


def main() -> int:
    """Prints the table; 1 when a ratio is missed or numbers differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="7,200 masks, 144 large masks")
    parser.add_argument("--quick", action="store_true", help="900 masks, 9 large masks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--keep", type=Path, help="folder for the synthetic files (default: a temporary one)"
    )
    options = parser.parse_args()
    rows: list[Row] = []
    detail: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        images, large = (400, 16) if options.full else (50, 1) if options.quick else (100, 4)
        coco = make_coco(
            folder / str(images), "coco", images=images, height=480, width=640, gt=9, dt=9
        )
        big = make_coco(
            folder / str(large), "big", images=large, height=2400, width=3200, gt=3, dt=6
        )
        for work, ratio in ((coco, 0.02), (coco, 0.01), (big, 0.02)):
            more, raw = run(work, ratio, rounds=options.rounds)
            rows += more
            detail.append(raw | {"workload": work.name, "dilation_ratio": ratio})
    return finish(rows, options.json, runs=detail)


if __name__ == "__main__":
    sys.exit(main())
