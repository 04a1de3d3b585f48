"""Image encoder: this project's, in float32 and in 8-bit integers, against `segment_anything`: time and peak memory.

    python -m perf.model.bench_encoder [--backbone vit_b] [--rounds 3] [--json FILE] [--full|--quick]

Every encoding runs in a fresh process with random weights, the programs in turn. Time is the
CPU time of one thread, so a busy machine moves it little; the ratio is that of the medians. Memory
is the peak resident set of the process. `--full` adds vit_l and vit_h; `--quick` takes three blocks
of vit_b. Targets (vit_b): 2 times as fast, 2.7 times in integers, at most 40 % of the memory; the
results in float32 must agree to 1e-5.
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

SPEED, INT8_SPEED, MEMORY, AGREEMENT = 2.0, 2.7, 40.0, 1e-5
PROGRAMS = ("segment_anything", "hqsam")
INT8 = "hqsam in 8-bit integers"
COUNT = "operations"
SHORT = "three blocks of vit_b"


def child(backbone: str, program: str) -> dict[str, Any]:
    """Encode one image; samples of the result show that both computed the same."""
    import torch

    from hqsam.model.attention import fuse_attention
    from hqsam.model.precision import use_int8

    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = _backbone(backbone).build().image_encoder.eval()
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    if program != "segment_anything":
        fuse_attention(encoder)
    if program == INT8:
        use_int8(encoder)
    size = encoder.img_size
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    before = peak_mb()
    start = time.process_time()
    with torch.inference_mode():
        out = encoder(image)
    seconds = time.process_time() - start
    samples = out.flatten()[:: out.numel() // 4096].tolist()
    return {"seconds": seconds, "peak_mb": peak_mb(), "before_mb": before, "samples": samples}


def count(backbone: str) -> dict[str, float]:
    """Multiplications and additions of the plain encoder, and those that this core does a second in one large product."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    with torch.device("meta"):
        encoder = _backbone(backbone).build().image_encoder.eval()
        image = torch.empty(1, 3, encoder.img_size, encoder.img_size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(image)
    square = torch.ones(2048, 2048)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        torch.mm(square, square)
        seconds.append(time.process_time() - start)
    return {"operations": counter.get_total_flops(), "rate": 2 * 2048**3 / min(seconds)}


def _backbone(name: str) -> Any:
    from hqsam.model import backbones
    from hqsam.model.backbones.base import vit_backbone

    short = vit_backbone(SHORT, width=768, depth=3, heads=12, global_blocks=(2,))
    return short if name == SHORT else backbones.load(name)


def measure(backbone: str, rounds: int) -> dict[str, Any]:
    """The encoders of one backbone, in turn."""
    runs: dict[str, list[dict[str, Any]]] = {program: [] for program in (*PROGRAMS, INT8)}
    counts = []
    for _ in range(rounds):
        counts.append(in_child("perf.model.bench_encoder", backbone, COUNT))
        for program in runs:
            runs[program].append(in_child("perf.model.bench_encoder", backbone, program))
    theirs, ours = (runs[program][0]["samples"] for program in PROGRAMS)
    scale = max(1.0, *map(abs, theirs))
    result: dict[str, Any] = {
        program: {
            "seconds": [run["seconds"] for run in found],
            "peak_mb": [run["peak_mb"] for run in found],
            "before_mb": found[0]["before_mb"],
        }
        for program, found in runs.items()
    }
    gap = max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) / scale
    rate = median([one["rate"] for one in counts])
    asked = {"operations": counts[0]["operations"], "rate": rate}
    return {"backbone": backbone, **result, "difference": gap, **asked}


def rows(result: dict[str, Any]) -> list[Row]:
    """The lines of one backbone; only vit_b has targets."""
    name = result["backbone"]
    theirs, ours = (result[program] for program in PROGRAMS)
    seconds = [median(program["seconds"]) for program in (theirs, ours)]
    peaks = [median(program["peak_mb"]) for program in (theirs, ours)]
    speed = Row.at_least(
        f"{name} encoder, 1024 pixels, CPU float32",
        seconds[0] / seconds[1],
        SPEED if name == "vit_b" else 0,
        peer=f"segment_anything: {seconds[0]:.1f} s",
        now=f"{seconds[1]:.1f} s",
    )
    memory = Row.at_most(
        f"{name} encoder: peak memory of the process, {peaks[1]:.0f} MB",
        100 * peaks[1] / peaks[0],
        MEMORY,
        "%",
        peer=f"segment_anything: {peaks[0]:.0f} MB",
    )
    gap = result["difference"]
    integers = median(result[INT8]["seconds"])
    shares = [
        f"{program} {result['operations'] / spent / result['rate']:.0%}"
        for program, spent in zip((*PROGRAMS, INT8), (*seconds, integers), strict=True)
    ]
    return [
        speed,
        Row.at_least(
            f"{name} encoder, 1024 pixels, CPU, 8-bit integers",
            seconds[0] / integers,
            INT8_SPEED if name == "vit_b" else 0,
            peer=f"segment_anything, float32: {seconds[0]:.1f} s",
            now=f"{integers:.1f} s",
        ),
        memory,
        Row.at_most(f"{name} encoder: largest difference of the results", gap, AGREEMENT, ""),
        Row(
            f"{name} encoder: share of this core's float32 products, "
            f"{result['rate'] / 1e9:.0f} GFLOP/s",
            ", ".join(shares),
        ),
    ]


def main() -> int:
    """Print the table; 1 if vit_b misses a target or the results differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        backbone, program = options.child
        print(json.dumps(count(backbone) if program == COUNT else child(backbone, program)))
        return 0
    sizes = ["vit_b", "vit_l", "vit_h"] if options.full else [SHORT if options.quick else "vit_b"]
    names = options.backbone or sizes
    results = [measure(name, options.rounds) for name in names]
    return finish(
        [row for result in results for row in rows(result)],
        options.json,
        results=results,
        cpu=processor(),
    )


if __name__ == "__main__":
    sys.exit(main())
