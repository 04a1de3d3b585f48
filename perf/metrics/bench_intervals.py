"""Intervals of AP: resamples of this build against those of an earlier one, in processes that take turns.

    python -m perf metrics/intervals [--full|--quick] [--before REVISION]

Two systems, AP and AP_B, 400 resamples, as `report` and `compare` make them: whole processes, the
import of the compiler included. --full adds LVIS val's size (6,000,000 detections, 1,203 categories),
this build alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from perf.revisions import BEFORE, ROOT, Cost, checkout, cost
from perf.table import Row, finish

PROGRAM = """
import json, sys, time
import numpy as np
from hqsam_metrics.ap.resample import Matches, Truth, weighted_ap
images, detections, categories, objects = map(int, sys.argv[1:5])
names = ("AP", "AP_B")

def made(seed):
    # Objects by category; four in five are found, by a detection of an IoU of 0.5 to 1.
    rng = np.random.default_rng(0)
    cell = np.sort(rng.integers(0, categories, objects) * images + rng.integers(0, images, objects))
    cells, there = np.unique(cell, return_counts=True)
    truth = Truth([str(i) for i in range(images)], np.arange(images, dtype=np.int32),
        np.zeros(images, np.int32), (cells % images).astype(np.int32), (cells // images).astype(np.int32),
        {name: there.astype(np.int32) for name in names})
    rng = np.random.default_rng(seed)
    found = cell[rng.random(objects) < 0.8]
    other = rng.integers(0, categories, detections - len(found)) * images
    other += rng.integers(0, images, len(other))
    own, good = np.concatenate([found, other]), np.arange(detections) < len(found)
    score = rng.random(detections) + 0.5 * good
    order = np.lexsort((-score, own // images))
    hit, void = {}, {}
    for name in names:
        reached = np.where(good, rng.integers(0, 11, detections), 0)
        hit[name] = ((1 << reached) - 1).astype(np.uint16)[order]
        away = rng.random(detections) < 0.02
        void[name] = np.where(away, 0x3FF & ~hit[name], 0).astype(np.uint16)
    return Matches(truth, (own % images).astype(np.int32)[order], (own // images).astype(np.int32)[order],
        hit, void)

def peak():
    # Not ru_maxrss, which begins with that of the parent process.
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024

sides = [made(1), made(2)]
data, begin = peak(), time.process_time()
try:
    from hqsam_base import compiled
    if compiled.ready("hqsam_metrics.ap.kernels", size=1, worth=1):
        from hqsam_metrics.ap import kernels
except ImportError:
    pass
compiler, loaded = peak() - data, time.process_time()
weights = np.vstack([np.ones((1, images), np.uint16), np.random.default_rng(1).multinomial(
    images, np.full(images, 1 / images), 400).astype(np.uint16)])
values = [[weighted_ap(side, name, weights).tolist() for side in sides] for name in names]
print(json.dumps({"values": values, "seconds": time.process_time() - loaded,
    "import_s": loaded - begin, "compiler_mb": compiler, "more_mb": peak() - data - compiler,
    "peak_mb": peak()}))
"""
SIZES = {"UVO's kind": ("400", "40000", "1", "6000"), "COCO's kind": ("400", "40000", "80", "3000")}
LVIS = ("20000", "6000000", "1203", "245000")


def run(before: Path, size: tuple[str, ...], rounds: int) -> dict[str, list[Cost]]:
    """Runs the builds in turn."""
    words = ["-c", PROGRAM, *size]
    found: dict[str, list[Cost]] = {"before": [], "compiled": [], "plain": []}
    for _ in range(rounds):
        found["before"].append(cost(before, words))
        found["compiled"].append(cost(ROOT, words, HQSAM_COMPILED=""))
        found["plain"].append(cost(ROOT, words, HQSAM_COMPILED="0"))
    return found


def largest_difference(a: Any, b: Any) -> float:
    """The largest difference of two lists of the same outline."""
    if isinstance(a, list):
        return max(largest_difference(x, y) for x, y in zip(a, b, strict=True))
    return abs(a - b)


def table(name: str, size: tuple[str, ...], found: dict[str, list[Cost]]) -> list[Row]:
    """The rows of one size."""
    told = {build: [json.loads(one.output) for one in costs] for build, costs in found.items()}
    where = f"intervals, {int(size[1]):,} detections of {name}, {size[2]} categories"
    whole = {build: median(one.processor for one in costs) for build, costs in found.items()}
    alone = {build: median(one["seconds"] for one in ones) for build, ones in told.items()}
    more = {build: max(one["more_mb"] for one in ones) for build, ones in told.items()}
    rows = []
    for build, limit in (("compiled", 50.0), ("plain", 11.0)):
        worst = largest_difference(told["before"][0]["values"], told[build][0]["values"])
        rows += [
            Row.at_least(
                f"{where}: {build}, the resamples",
                alone["before"] / alone[build],
                limit,
                before=f"{alone['before']:.1f} s",
                now=f"{alone[build]:.2f} s",
            ),
            Row.at_least(
                f"{where}: {build}, whole process",
                whole["before"] / whole[build],
                0,
                before=f"{whole['before']:.1f} s",
                now=f"{whole[build]:.2f} s",
            ),
            Row.at_most(f"{where}: {build}, largest difference of a value", worst, 1e-12, ""),
        ]
    for build in ("compiled", "plain"):
        what, was = f"{where}: {build}, memory above the data", f"{more['before']:.0f} MB"
        rows.append(Row.at_most(what, more[build], 20, "MB", before=was))
    once = told["compiled"][0]
    text = f"{once['import_s']:.2f} s, {once['compiler_mb']:.0f} MB"
    return [*rows, Row(f"{where}: the compiler's import, once a process", text)]


def main() -> int:
    """Prints the table; 1 when a promise is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true", help="4,000 detections")
    parser.add_argument("--before", default=BEFORE, metavar="REVISION")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(cost(ROOT, ["-m", "hqsam_base.compiled"]).output)
    rows: list[Row] = []
    with checkout(options.before) as before:
        for name, size in SIZES.items():
            used = (size[0], "4000", size[2], "600") if options.quick else size
            rows += table(name, used, run(before, used, options.rounds))
    if options.full:
        found = cost(ROOT, ["-c", PROGRAM, *LVIS])
        told = json.loads(found.output)
        where = "intervals, LVIS val's size: 6,000,000 detections, 1,203 categories"
        rows.append(Row.at_most(f"{where}: time of one core", told["seconds"], 150, "s"))
        rows.append(Row.at_most(f"{where}: peak memory", told["peak_mb"] / 1000, 1.5, "GB"))
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
