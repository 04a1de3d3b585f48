"""Training steps on one GPU against the encoder's bf16 forward roofline.

    python -m benchmarks.train.bench_gpu [--backbone vit_l] [--batch 32] [--steps 10] [--micro 0] [--compile] [--json FILE]

Random weights: only time and memory are measured. In one run: the rate of large bf16 matrix products, and whole training
steps (frozen encoder under bf16 autocast, head and loss in float32, Adam). The share is the encoder's forward FLOPs per step
over the step's time, divided by that rate. Targets for vit_l at batch 32: 55 %, and 12 epochs of 44,320 pictures in 90
minutes. Loader: decoding and augmenting 2048 x 1536 JPEGs with 16 threads must keep up with the steps. Without CUDA the
script says so and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.model.measure import processor
from benchmarks.table import Row, finish

SHARE, MINUTES = 55.0, 90.0
PICTURES = 12 * 44320


def encoder_flops(encoder: Any) -> float:
    """Forward FLOPs of SAM's ViT for one picture: two per multiplication and addition of its matrix products."""
    width = int(encoder.patch_embed.proj.out_channels)
    side = int(encoder.img_size) // int(encoder.patch_embed.proj.kernel_size[0])
    total = 2.0 * side**2 * width * 3 * encoder.patch_embed.proj.kernel_size[0] ** 2
    for block in encoder.blocks:
        window = int(block.window_size) or side
        padded = -(-side // window) * window
        tokens, hidden = padded**2, int(block.mlp.lin1.out_features)
        total += 2.0 * tokens * width * 4 * width + 2.0 * side**2 * width * 2 * hidden
        total += 4.0 * tokens * window**2 * width
    out = int(encoder.neck[0].out_channels)
    return total + 2.0 * side**2 * (width * out + 9 * out * out)


def matrix_rate(size: int = 8192, repeats: int = 20) -> float:
    """FLOP/s of bf16 matrix products on the GPU."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    torch.cuda.synchronize()
    return repeats * 2.0 * size**3 / (time.perf_counter() - start)


def steps(options: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds of a step (median), encoder FLOPs of a step, peak memory in GiB."""
    from benchmarks.train.steps import Ours, views
    from hqsam.training.step import Step

    ours = Ours(options.backbone, "cuda", precision="bf16", batch_size=options.batch)
    if options.compile:
        for block in ours.model.sam.image_encoder.blocks:
            block.compile()
    ours.step = Step(ours.model, ours.options, ours.step.group, options.micro)
    batch = views(options.batch, ours.model.backbone.image_size)
    times = []
    for number in range(options.steps + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        ours.learn(batch, ours.encode(batch))
        torch.cuda.synchronize()
        if number >= 3:
            times.append(time.perf_counter() - start)
    flops = encoder_flops(ours.model.sam.image_encoder) * options.batch
    return sorted(times)[len(times) // 2], flops, torch.cuda.max_memory_allocated() / 2**30


def loader_rate(threads: int = 16, n: int = 64) -> float:
    """Pictures per second: decode a JPEG of 2048 x 1536, scale, crop and pad it and its mask to 1024 x 1024."""
    import cv2
    import numpy as np
    from hqsam_datasets.augment import apply_view

    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (48, 64, 3), np.uint8), (2048, 1536), interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".jpg", smooth)[1]
    mask = cv2.imencode(".png", (smooth[..., 0] > 128).astype(np.uint8) * np.uint8(255))[1]
    jitter = {"scale": 1.5, "height": 1152, "width": 1536, "crop_y": 64, "crop_x": 128, "crop_h": 1024, "crop_w": 1024}
    view: Any = {"flip": True, "jitter": jitter, "image_size": 1024}

    def load(_: int) -> None:
        image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        apply_view(image=np.asarray(image, np.uint8), mask=np.asarray(cv2.imdecode(mask, 0), np.uint8), view=view)

    cv2.setNumThreads(1)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(load, range(threads)))
        start = time.perf_counter()
        list(pool.map(load, range(n)))
    return n / (time.perf_counter() - start)


def main() -> int:
    """Print the table; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vit_l")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        return finish([Row("training on a GPU", "not measured: torch finds no CUDA device")], options.json)
    rate = matrix_rate()
    seconds, flops, memory = steps(options)
    loader = loader_rate()
    share, minutes = 100 * flops / seconds / rate, PICTURES / options.batch * seconds / 60
    name = f"{torch.cuda.get_device_name()}, {options.backbone}, bf16, batch {options.batch}"
    rows = [
        Row(f"{name}: bf16 matrix rate", f"{rate / 1e12:.0f} TFLOP/s"),
        Row(f"{name}: step", f"{1000 * seconds:.0f} ms, {memory:.1f} GiB"),
        Row.at_least(
            f"{name}: encoder FLOPs of a step over what the matrix rate allows, times {SHARE:g} %", share / SHARE, 1.0
        ),
        Row.at_most(f"{name}: 12 epochs of 44,320 pictures", minutes, MINUTES, "min"),
        Row.at_least(
            f"loader, 16 threads: pictures per second over the steps' ({loader:.0f})",
            loader * seconds / options.batch,
            1.0,
        ),
    ]
    return finish(rows, options.json, share=share, rate=rate, seconds=seconds, cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
