"""ONNX files of every backbone at its published depth, against PyTorch: differences, sizes, time and memory of the export.

    python -m perf.model.bench_onnx [--backbone NAME ...] [--part encoder|decoder] [--json FILE]
    [--full]

Random weights. Each file is written and checked by the code behind `hqsam export onnx`, in a fresh
process; time and peak resident set are of that, the check included. A decoder then runs 1, 7 and 64
prompts (a box and two points each) of one image in one call. Differences are the largest of any
output; the target is the bound of the export, in logits, or as a share of the largest value where
that is above 1. Without `--full`: vit_tiny and nano.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from perf.model.measure import in_child, peak_mb, processor
from perf.table import Row, finish

BACKBONES = ("nano", "vit_tiny", "vit_b", "vit_l", "vit_h")
PARTS = ("encoder", "decoder")
PROMPTS = (1, 7, 64)


def child(backbone: str, part: Any, folder: str) -> dict[str, Any]:
    """Export one part of one backbone and compare it."""
    import torch

    from hqsam.export.onnx_files import export_onnx

    torch.set_num_threads(1)
    model = _model(backbone)
    start, loaded = time.process_time(), peak_mb()
    [written] = export_onnx(model, Path(folder), parts=[part])
    seconds, peak = time.process_time() - start, peak_mb()
    worst = [written.difference]
    if part == "decoder":
        worst += _many_prompts(model, written.path)
    return {
        "backbone": backbone,
        "part": part,
        "largest": [one.largest for one in worst],
        "share": max(one.share for one in worst),
        "scale": max(one.scale for one in worst),
        "bytes": written.size,
        "files": {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())},
        "seconds": seconds,
        "loaded_mb": loaded,
        "peak_mb": peak,
    }


def _model(backbone: str) -> Any:
    """Random weights that give logits of several units, with positions that are not zero.

    Attention between tokens and image is as soft as a trained decoder's: as sharp as random
    projections make it, a change of the features by 1e-7 moves a logit by 0.1.
    """
    import torch

    from hqsam.model.build import build_sam_hq

    model = build_sam_hq(backbone)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.sam.image_encoder.named_parameters():
            if "rel_pos" in name or "pos_embed" in name or "attention_biases" in name:
                parameter.normal_(std=0.02)
        for part in (model.sam.mask_decoder, model.sam.prompt_encoder.mask_downscaling, model.head):
            for name, parameter in part.named_parameters():
                if parameter.ndim > 1 and "token" not in name:
                    soft = 0.25 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
                    parameter.normal_(std=soft / parameter[0].numel() ** 0.5)
    return model


def _many_prompts(model: Any, path: Path) -> list[Any]:
    from hqsam.export.check import PromptCase, compare_case, random_features, session
    from hqsam.export.parts import DecoderOptions

    runtime, encoded = session(path), random_features(model)
    cases = [
        PromptCase(points=2, boxes=True, masks=False, prompts=count, size=(300, 451))
        for count in PROMPTS
    ]
    return [
        compare_case(model, runtime, encoded, case, DecoderOptions(), case.prompts)
        for case in cases
    ]


def measure(backbone: str, part: str) -> dict[str, Any]:
    """One part in a fresh process; its files are removed."""
    with tempfile.TemporaryDirectory() as folder:
        return in_child("perf.model.bench_onnx", backbone, part, folder)


def row(found: dict[str, Any]) -> Row:
    """The line of one file."""
    from hqsam.export.onnx_files import TOLERANCE

    gaps = ", ".join(f"{gap:.1e}" for gap in found["largest"])
    prompts = (
        f"mixed cases; {', '.join(map(str, PROMPTS))} prompts: "
        if found["part"] == "decoder"
        else ""
    )
    size = (
        f"{found['bytes'] / 1e6:.1f} MB in {len(found['files'])} "
        f"file{'s'[: len(found['files']) - 1]}"
    )
    cost = (
        f"{found['seconds']:.0f} s, peak {found['peak_mb'] / 1000:.2f} GB, model alone "
        f"{found['loaded_mb'] / 1000:.2f} GB"
    )
    values = f"{prompts}{gaps}; values up to {found['scale']:.1f}; {size}; {cost}"
    return Row.at_most(
        f"{found['backbone']} {found['part']} ({values})", found["share"], TOLERANCE, ""
    )


def main() -> int:
    """Print the table; 1 if a file differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", action="append", choices=BACKBONES)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return 0
    names = options.backbone or (BACKBONES if options.full else ("nano", "vit_tiny"))
    results = [measure(name, part) for name in names for part in options.part or PARTS]
    return finish([row(found) for found in results], options.json, results=results, cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
