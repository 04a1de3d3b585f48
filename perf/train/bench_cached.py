"""Head-only steps on cached features against online steps, on a CPU.

    python -m perf.train.bench_cached [--backbone vit_b] [--batch 2] [--rounds 3] [--json FILE]
        [--quick]

Both kinds of step in turn in one process, with the same views and weights. Time is the CPU time of
one thread. The cached step begins with the features as the cache holds them, 16 bits a number.
Target (vit_b): 15 times as fast.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from perf.model.measure import median, processor
from perf.table import Row, finish

SPEED = 15.0


def measure(backbone: str, batch_size: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each online and each cached step."""
    import torch

    from perf.train.steps import Ours, views

    torch.set_num_threads(1)
    trainer = Ours(backbone)
    batch = views(batch_size, trainer.model.backbone.image_size)
    found = trainer.encode(batch)
    kept = found.final_BCHW.half(), found.early_BVHW.half()
    trainer.learn(batch, found)
    online, cached = [], []
    for _ in range(rounds):
        start = time.process_time()
        trainer.learn(batch, trainer.encode(batch))
        online.append(time.process_time() - start)
        start = time.process_time()
        trainer.learn(batch, type(found)(*(t.float() for t in kept)))
        cached.append(time.process_time() - start)
    return online, cached


def main() -> int:
    """Print the table; 1 if the target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit_b")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one step of one picture each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    batch, rounds = (1, 1) if options.quick else (options.batch, options.rounds)
    online, cached = measure(options.backbone, batch, rounds)
    seconds = median(online), median(cached)
    told = {"peer": f"online: {seconds[0]:.1f} s", "now": f"{seconds[1]:.2f} s"}
    what = f"{options.backbone}, batch {batch}: cached step against online"
    rows = [Row.at_least(what, seconds[0] / seconds[1], SPEED, **told)]
    return finish(rows, options.json, online=online, cached=cached, cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
