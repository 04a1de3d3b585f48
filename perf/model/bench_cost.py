"""What HQ-SAM costs over SAM, per backbone: parameters, images a second, peak memory (the paper's Tables 1 and 10).

    python -m perf.model.bench_cost [--backbone NAME ...] [--rounds 3] [--json FILE] [--full]
    python -m perf.model.bench_cost --full --write      # renews the measurement that the report shows

One image with one box, from pixels to a mask of 1024 x 683. Weights are random: they move none of
these numbers. Both systems share the encoder, so it is timed once for both; images a second are of
one thread's CPU time. Memory is the peak resident set of a fresh process, read when SAM and then
when HQ-SAM has segmented its first image. Without `--full`: vit_tiny and nano.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from perf.model.measure import in_child, median, peak_mb, processor
from perf.table import Row, finish

BACKBONES = ("vit_b", "vit_l", "vit_h", "vit_tiny", "nano")
SYSTEMS = {"SAM": "sam", "HQ-SAM": "hq_sum"}
HEIGHT, WIDTH = 683, 1024
HERE = Path(__file__).resolve()
COMMITTED = HERE.parents[2] / "pipelines" / "hqsam_pipelines" / "data" / "model_cost.json"
_DECODES = 5


class _Work:
    """A model, an image and a box."""

    def __init__(self, backbone: str) -> None:
        import numpy as np
        import torch

        from hqsam.model.build import build_sam_hq
        from hqsam.model.preprocess import Frame
        from hqsam.prediction.prompt import Prompt

        torch.set_num_threads(1)
        self.model = build_sam_hq(backbone)
        self.frame = Frame(HEIGHT, WIDTH, self.model.backbone.image_size)
        self.image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        self.prompts = [Prompt(box=(200.0, 100.0, 800.0, 600.0))]

    def encode(self) -> Any:
        return self.model.encode(self.model.preprocess(self.frame.image(self.image)[None]))

    def decode(self, encoded: Any, output: Any) -> Any:
        from hqsam.api.predictor import decode
        from hqsam.prediction.postprocess import mask_patch
        from hqsam.prediction.prompt import embed

        prompts = embed(self.model, self.frame, self.prompts, mask_encoding="logits")
        found = decode(self.model, encoded, prompts, output)
        return mask_patch(found.logits_PKhw[0, 0].numpy(), self.frame)


def child(backbone: str, rounds: int) -> dict[str, Any]:
    """CPU seconds of the encoder and of both decoders in turn; peak memory when SAM, then HQ-SAM, has segmented the image."""
    import torch

    work = _Work(backbone)
    seconds: dict[str, list[float]] = {name: [] for name in ("encode", *SYSTEMS)}
    peaks: dict[str, int] = {}
    with torch.inference_mode():
        for _ in range(rounds):
            encoded = _timed(seconds["encode"], work.encode)
            for _ in range(_DECODES):
                for name, output in SYSTEMS.items():
                    _timed(seconds[name], partial(work.decode, encoded, output))
                    peaks.setdefault(name, peak_mb())
    sam, head = (sum(p.numel() for p in m.parameters()) for m in (work.model.sam, work.model.head))
    times = {name: median(found) for name, found in seconds.items()}
    return {"times": times, "peaks": peaks, "sam": sam, "head": head}


def _timed(seconds: list[float], call: Callable[[], Any]) -> Any:
    start = time.process_time()
    result = call()
    seconds.append(time.process_time() - start)
    return result


def measure(backbone: str, rounds: int) -> list[dict[str, Any]]:
    """The rows of one backbone: SAM, HQ-SAM."""
    found = in_child("perf.model.bench_cost", backbone, str(rounds))
    counts = {
        "SAM": (found["sam"], found["sam"]),
        "HQ-SAM": (found["head"], found["sam"] + found["head"]),
    }
    rows = []
    for system in SYSTEMS:
        fps = 1 / (found["times"]["encode"] + found["times"][system])
        learnable, total = counts[system]
        row = {
            "backbone": backbone,
            "system": system,
            "fps": float(f"{fps:.4g}"),
            "peak_mb": found["peaks"][system],
        }
        rows.append({**row, "total": total, "learnable": learnable})
    return rows


def table(results: list[dict[str, Any]]) -> list[Row]:
    """Printed lines: HQ-SAM's cost over SAM."""
    rows = []
    for sam, hq in zip(results[::2], results[1::2], strict=True):
        name = f"{sam['backbone']}, SAM and HQ-SAM"
        learnable = f"{hq['learnable']:,} learnable, {100 * hq['learnable'] / hq['total']:.2f} %"
        rows += [
            Row(f"{name}: parameters ({learnable})", f"{sam['total']:,} and {hq['total']:,}"),
            Row(
                f"{name}: images a second",
                f"{sam['fps']:.3g} and {hq['fps']:.3g} ({hq['fps'] / sam['fps']:.1%})",
            ),
            Row(f"{name}: peak memory", f"{sam['peak_mb']} MB and {hq['peak_mb']} MB"),
        ]
    return rows


def commit(results: list[dict[str, Any]]) -> None:
    """Renew the committed measurement; backbones that were not measured this time keep their rows."""
    old = json.loads(COMMITTED.read_text())["rows"] if COMMITTED.is_file() else []
    measured = {row["backbone"] for row in results}
    rows = [row for row in old if row["backbone"] not in measured] + results
    rows.sort(key=lambda row: (BACKBONES.index(row["backbone"]), row["system"] != "SAM"))
    machine = (
        f"one thread of an {processor()}, float32, random weights, one {WIDTH} x {HEIGHT} image "
        f"with one box"
    )
    content = {
        "command": "python -m perf.model.bench_cost --full --write",
        "machine": machine,
        "rows": rows,
    }
    COMMITTED.write_text(json.dumps(content, indent=1) + "\n")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", action="append", choices=BACKBONES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child[0], int(options.child[1]))))
        return 0
    names = options.backbone or (BACKBONES if options.full else ("vit_tiny", "nano"))
    results = [row for name in names for row in measure(name, options.rounds)]
    if options.write:
        commit(results)
    return finish(table(results), options.json, results=results, cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
