"""One training step on a CPU against the authors' step: time and peak memory.

    python -m perf.train.bench_step [--backbone vit_b] [--batch 2] [--rounds 3] [--json FILE] [--quick]

Each step runs in a fresh process with random weights, the two programs in turn. Time is the CPU
time of one thread, so a busy machine moves it little; the ratio is that of the medians. Memory is
the peak resident set of the process. The baseline is put together from the classes of
`segment-anything-hq` in the order of the authors' train.py (see steps.py). Targets (vit_b, 1024
pixels, batch 2): 1.5 times as fast, at most 70 % of the memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from perf.model.measure import in_child, median, peak_mb, processor
from perf.table import Row, finish

SPEED, MEMORY = 1.5, 70.0
PROGRAMS = ("authors", "hqsam")


def child(backbone: str, batch_size: str, program: str) -> dict[str, Any]:
    """One step."""
    import torch

    from perf.train.steps import Ours, Theirs, views

    torch.set_num_threads(1)
    trainer: Any = Theirs(backbone) if program == "authors" else Ours(backbone)
    batch = views(int(batch_size), 1024)
    before = peak_mb()
    start = time.process_time()
    loss = (
        trainer.learn(batch)
        if program == "authors"
        else trainer.learn(batch, trainer.encode(batch))
    )
    return {
        "seconds": time.process_time() - start,
        "peak_mb": peak_mb(),
        "before_mb": before,
        "loss": loss,
    }


def main() -> int:
    """Print the table; 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit_b")
    parser.add_argument("--batch", default="2")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one picture, one round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return 0
    batch = "1" if options.quick else options.batch
    runs: dict[str, list[dict[str, Any]]] = {program: [] for program in PROGRAMS}
    for _ in range(1 if options.quick else options.rounds):
        for program in PROGRAMS:
            runs[program].append(
                in_child("perf.train.bench_step", options.backbone, batch, program)
            )
    seconds = [median([r["seconds"] for r in runs[p]]) for p in PROGRAMS]
    peaks = [median([r["peak_mb"] for r in runs[p]]) for p in PROGRAMS]
    what = f"{options.backbone}, 1024 pixels, batch {batch}, one step"
    rows = [
        Row.at_least(
            f"{what}: speed against the authors'",
            seconds[0] / seconds[1],
            SPEED,
            peer=f"authors: {seconds[0]:.1f} s",
            now=f"{seconds[1]:.1f} s",
        ),
        Row.at_most(
            f"{what}: peak memory, {peaks[1]:.0f} MB",
            100 * peaks[1] / peaks[0],
            MEMORY,
            "%",
            peer=f"authors: {peaks[0]:.0f} MB",
        ),
    ]
    return finish(rows, options.json, runs=runs, cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
