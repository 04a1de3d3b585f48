"""Image encoder: this project's fused attention against `segment_anything`, time and peak memory.

    python -m perf.model.bench_encoder [--backbone vit_b] [--rounds 3] [--json FILE] [--full|--quick]

Every encoding runs in a fresh process with random weights, the two programs in turn. Time is the
CPU time of one thread, so a busy machine moves it little; the ratio is that of the medians. Memory
is the peak resident set of the process. `--full` adds vit_l and vit_h; `--quick` takes three blocks
of vit_b. Targets (vit_b): 2 times
as fast, at most 40 % of the memory; the results must agree to 1e-5.
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

SPEED, MEMORY, AGREEMENT = 2.0, 40.0, 1e-5
PROGRAMS = ("segment_anything", "hqsam")
SHORT = "three blocks of vit_b"


def child(backbone: str, program: str) -> dict[str, Any]:
    """Encode one image; samples of the result show that both computed the same."""
    import torch

    from hqsam.model import backbones
    from hqsam.model.attention import fuse_attention
    from hqsam.model.backbones.base import vit_backbone

    torch.set_num_threads(1)
    torch.manual_seed(0)
    short = vit_backbone(SHORT, width=768, depth=3, heads=12, global_blocks=(2,))
    known = short if backbone == SHORT else backbones.load(backbone)
    encoder = known.build().image_encoder.eval()
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    if program == "hqsam":
        fuse_attention(encoder)
    size = encoder.img_size
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    before = peak_mb()
    start = time.process_time()
    with torch.inference_mode():
        out = encoder(image)
    seconds = time.process_time() - start
    samples = out.flatten()[:: out.numel() // 4096].tolist()
    return {"seconds": seconds, "peak_mb": peak_mb(), "before_mb": before, "samples": samples}


def measure(backbone: str, rounds: int) -> dict[str, Any]:
    """Both encoders of one backbone, in turn."""
    runs: dict[str, list[dict[str, Any]]] = {program: [] for program in PROGRAMS}
    for _ in range(rounds):
        for program in PROGRAMS:
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
    return {"backbone": backbone, **result, "difference": gap}


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
    return [
        speed,
        memory,
        Row.at_most(f"{name} encoder: largest difference of the results", gap, AGREEMENT, ""),
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
        print(json.dumps(child(*options.child)))
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
