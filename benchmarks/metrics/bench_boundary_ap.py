"""Boundary AP: this package against the original algorithm, faster-coco-eval and vernier, in one interleaved run.

    python benchmarks/metrics/bench_boundary_ap.py [--full] [--json FILE]

Without --full a quarter of the images. faster-coco-eval does not run on the large pictures: minutes a round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from programs import Program, faster_coco_eval, original, ours, prepare_vernier, vernier
from workloads import Workload, make_coco

# Ratios that the project promises: workload -> program -> how many times its time ours must fit in.
TARGETS = {
    "coco": {"original": 8.0, "faster-coco-eval": 20.0, "vernier": 1.0},
    "big": {"original": 10.0},
}


def available(workload: str) -> dict[str, Program]:
    """The programs that can run here."""
    out: dict[str, Program] = {"ours (1 process)": ours(1), "ours (2 processes)": ours(2), "original": original}
    if importlib.util.find_spec("vernier"):
        out["vernier"] = vernier
    if importlib.util.find_spec("faster_coco_eval") and workload == "coco":
        out["faster-coco-eval"] = faster_coco_eval
    return out


def run(work: Workload, ratio: float, *, rounds: int) -> dict[str, Any]:
    """Times every program `rounds` times in turn (slow ones once) and compares their numbers."""
    if importlib.util.find_spec("vernier"):
        prepare_vernier(work.dt)
    programs = available(work.name)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    numbers = {}
    for turn in range(rounds):
        for name, program in programs.items():
            if turn and min(seconds[name]) > 20:
                continue
            begin = time.perf_counter()
            numbers[name] = program(work.gt, work.dt, ratio)
            seconds[name].append(time.perf_counter() - begin)
    best = {name: min(times) for name, times in seconds.items()}
    quickest = min(time for name, time in best.items() if name.startswith("ours"))
    worst = max(abs(a - b) for values in numbers.values() for a, b in zip(values, numbers["original"], strict=True))
    return {
        "workload": work.name,
        "images": work.n_images,
        "masks": work.n_masks,
        "dilation_ratio": ratio,
        "seconds": {name: round(value, 3) for name, value in best.items()},
        "times_ours": {name: round(value / quickest, 2) for name, value in best.items() if not name.startswith("ours")},
        "largest_difference": worst,
        "met": {name: best[name] / quickest >= t for name, t in TARGETS[work.name].items() if name in best},
    }


def main() -> None:
    """Prints the table and, with --json, writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the full sizes: 7,200 masks, 144 large masks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the synthetic files (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        images, large = (400, 16) if options.full else (100, 4)
        coco = make_coco(folder / str(images), "coco", images=images, height=480, width=640, gt=9, dt=9)
        big = make_coco(folder / str(large), "big", images=large, height=2400, width=3200, gt=3, dt=6)
        rows = [run(work, ratio, rounds=options.rounds) for work, ratio in ((coco, 0.02), (coco, 0.01), (big, 0.02))]
    for row in rows:
        print(json.dumps(row))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
