"""GPU: vit_l in bfloat16, batches of 8, against the original float32 predictor; and what bfloat16 does to mIoU.

    python -m benchmarks.model.bench_gpu [--backbone vit_l] [--batch 8] [--rounds 5] [--checkpoint FILE] [--json FILE] [--full]

Speed needs CUDA and says so where there is none. `segment_anything`'s `SamPredictor.set_image` and this project's encoder get the
same resized images, in turn; images a second are of the medians. Target: 4 times as many.

mIoU runs anywhere: drawn scenes with known masks, one box each, plain SAM's output, with the encoder in float32 and in bfloat16.
Random weights segment nothing, so it takes the pretrained `nano` unless `--checkpoint` names a SAM or HQ-SAM (whose backbone is
then the one that is timed). 64 scenes, 256 with `--full`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.model.measure import median, processor
from benchmarks.table import Row, finish

TARGET = 4.0
_SIDE = 512


def speed(model: Any, batch: int, rounds: int) -> dict[str, Any]:
    """Images a second of both, with the same weights."""
    import torch

    images = np.random.default_rng(0).integers(0, 256, (batch, 1024, 1024, 3), dtype=np.uint8)
    theirs = _original(model)
    ours = model.cuda()

    def run_theirs() -> None:
        for image in images:
            theirs.set_image(image)

    def run_ours() -> None:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            ours.encode(ours.preprocess(pixels))

    seconds: dict[str, list[float]] = {"original": [], "hqsam": []}
    for n in range(rounds + 1):
        for name, call in (("original", run_theirs), ("hqsam", run_ours)):
            taken = _gpu_seconds(call)
            if n:  # the first round compiles and warms up
                seconds[name].append(taken)
    rates = {name: batch / median(values) for name, values in seconds.items()}
    return {**rates, "device": torch.cuda.get_device_name(), "batch": batch}


def _original(model: Any) -> Any:
    """`segment_anything`'s predictor with an encoder of its own and the model's weights, on the GPU."""
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    from segment_anything import SamPredictor

    sam = model.backbone.build()
    sam.load_state_dict(model.sam.state_dict())
    return SamPredictor(sam.cuda().eval())


def _gpu_seconds(call: Callable[[], None]) -> float:
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def precision(model: Any, scenes: int) -> dict[str, float]:
    """Percent: mIoU on drawn scenes with the encoder in float32, in bfloat16, and of the two masks with each other."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    found = [_ious(model, device, seed) for seed in range(scenes)]
    single, half, between = (100 * float(np.mean(values)) for values in zip(*found, strict=True))
    return {"float32": single, "bfloat16": half, "between": between, "scenes": scenes}


def _ious(model: Any, device: str, seed: int) -> tuple[float, float, float]:
    """IoU with the truth in float32 and in bfloat16, and of the two masks, for the object of one scene."""
    import torch
    from hqsam_datasets.embedded.scenes import EVAL_FAMILIES, render_scene
    from hqsam_datasets.rle import tight_box
    from hqsam_metrics import mask_iou

    rng = np.random.default_rng(seed)
    scene = render_scene(rng=rng, height=_SIDE, width=_SIDE, families=EVAL_FAMILIES, n_objects=1)
    truth = scene.objects[0].alpha > 0.5
    masks = []
    for low in (False, True):
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=low):
            masks.append(_segment(model, scene.image, tight_box(truth)))
    single, half = masks
    return (
        mask_iou(pred=single, target=truth),
        mask_iou(pred=half, target=truth),
        mask_iou(pred=half, target=single),
    )


def _segment(model: Any, image: Any, box: Any) -> Any:
    """The mask of one box, by SAM alone; only the encoder runs in the precision of the caller."""
    import torch

    from hqsam.model.hq_sam import Encoded
    from hqsam.outputs import mask_patch
    from hqsam.predictor import decode
    from hqsam.prompting import Frame
    from hqsam.prompts import Prompt, embed

    frame = Frame(image.shape[0], image.shape[1], model.backbone.image_size)
    encoded = model.encode(model.preprocess(frame.image(image)[None]))
    encoded = Encoded(encoded.final_BCHW.float(), encoded.early_BVHW.float())
    with torch.autocast(model.device.type, enabled=False):
        prompts = embed(model, frame, [Prompt(box=tuple(box))], mask_encoding="logits")
        logits = decode(model, encoded, prompts, "sam").logits_PKhw[0, 0]
    return mask_patch(logits.cpu().numpy(), frame).full()


def main() -> int:
    """Print the rows; 1 if the target is missed on a GPU."""
    import torch

    from hqsam.model.backbones import bundled_weights
    from hqsam.model.build import build_sam_hq
    from hqsam.model.load import load_any

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_l")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    given = None if options.checkpoint is None else load_any(options.checkpoint)
    rows, result = [], {}
    if torch.cuda.is_available():
        result["speed"] = speed(given or build_sam_hq(options.backbone), options.batch, options.rounds)
        rows.append(_speed_row(result["speed"], given.backbone.name if given else options.backbone))
    else:
        rows.append(Row(f"{options.backbone}, bfloat16, batch {options.batch}: not measured", "no CUDA device"))
    judged = given or build_sam_hq("nano", bundled_weights("nano"))
    result["miou"] = precision(judged, 256 if options.full else 64)
    rows += _precision_rows(result["miou"], judged.backbone.name)
    return finish(rows, options.json, results=result, cpu=processor())


def _speed_row(found: dict[str, Any], backbone: str) -> Row:
    rates = f"{found['hqsam']:.1f} and {found['original']:.1f} images a second on {found['device']}"
    what = f"{backbone} encoder in bfloat16, batch {found['batch']}, against the float32 predictor ({rates})"
    return Row.at_least(what, found["hqsam"] / found["original"], TARGET)


def _precision_rows(found: dict[str, float], backbone: str) -> list[Row]:
    what = f"{backbone} on {found['scenes']:.0f} drawn scenes"
    change = found["bfloat16"] - found["float32"]
    return [
        Row(f"{what}: mIoU with the encoder in float32 and in bfloat16",
             f"{found['float32']:.2f} and {found['bfloat16']:.2f} ({change:+.2f})"),
        Row(f"{what}: mIoU of the two masks with each other", f"{found['between']:.2f}"),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
