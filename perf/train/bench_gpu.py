"""The training on one GPU against the encoder's bf16 forward roofline, and its loader against its steps.

    python -m perf.train.bench_gpu [--backbone vit_l] [--batch 32] [--steps 10] [--micro 0]
    [--compile] [--json FILE]
    python -m perf.train.bench_gpu --dry        # the same code at a tiny size on a CPU: does it run?

Random weights and drawn pictures: only time and memory are measured. All parts are those of the
product: `OnlineFeed` with its decoding threads over shards of JPEGs (2048 x 1536, larger than most
of HQSeg-44K), the encoder under bf16 autocast,
`Step.take` (head and loss in float32, Adam). In one run:

* the rate of large bf16 matrix products, before and after the steps; the higher one counts;
* steps whose batch is there already. Their share of the roofline is the encoder's forward FLOPs
  (`encoder_flops`, which a test compares with torch's counter) over time and rate: target 55 %;
* the loader alone: views a second, target at least those of the steps (16 threads);
* whole steps, from the shard to Adam. 12 epochs of 44,320 pictures at their pace: target 90
  minutes.

Every time is taken between two synchronisations, after warm-up. Without CUDA (and `--dry`) the
script says so and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perf.model.measure import median, processor
from perf.table import Row, finish

SHARE, MINUTES = 55.0, 90.0
PICTURES = 12 * 44320
WARM_UP = 3
DRY = {
    "backbone": "nano",
    "batch": 4,
    "steps": 2,
    "matrix": 256,
    "width": 192,
    "height": 144,
    "threads": 2,
}


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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of some work, the GPU's included."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def matrix_rate(size: int, device: torch.device, repeats: int = 50) -> float:
    """FLOP/s of bf16 matrix products: the best of three runs."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(repeats):
            a @ b

    products()
    return repeats * 2.0 * size**3 / min(seconds(products, device) for _ in range(3))


def write_set(folder: Path, n: int, width: int, height: int, backbone: Any) -> None:
    """Shards of `n` smooth pictures as JPEGs with one blob each, and their plans, as the pipeline writes them."""
    import cv2

    from hqsam_base.atomic import write_json
    from hqsam_datasets.formats.images import encode_png
    from hqsam_datasets.formats.tar_writer import ShardWriter
    from hqsam_datasets.prepare import augment
    from hqsam_datasets.sample import sample_json

    rng = np.random.default_rng(0)
    (folder / "shards").mkdir()
    with ShardWriter(folder / "shards", prefix="train", samples_per_shard=16) as writer:
        for number in range(n):
            coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
            image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            mask = np.zeros((height, width), np.uint8)
            cv2.ellipse(
                mask,
                (width // 2, height // 2),
                (width // 3, height // 4),
                30 * number,
                0,
                360,
                255,
                -1,
            )
            record = sample_json(
                key=f"bench_{number:04d}",
                source="bench",
                height=height,
                width=width,
                categories=(None,),
                origin_image="",
                origin_mask="",
            )
            picture = cv2.imencode(".jpg", image)[1].tobytes()
            writer.add(
                f"bench_{number:04d}",
                {"jpg": picture, "mask.png": encode_png(mask), "json": record},
            )
        shards = [shard.as_json() for shard in writer.close()]
    index = {
        "version": 1,
        "n_samples": n,
        "by_source": {"bench": n},
        "excluded": [],
        "shards": shards,
        "digest": "",
    }
    write_json(folder / "shards" / "index.json", index)
    options = augment.AugmentOptions(
        image_size=backbone.image_size, mask_input_size=backbone.mask_size
    )
    augment.write_prompts(
        shards=folder / "shards",
        out=folder / "prompts",
        options=options,
        seed=0,
        progress=lambda *_: None,
        workers=1,
    )


def measure(options: argparse.Namespace) -> dict[str, float]:
    """All numbers of the run."""
    from hqsam.training import checks, guard
    from hqsam.training.feed import OnlineFeed
    from hqsam.training.loader import Item, TrainingSet
    from hqsam.training.options import TrainOptions
    from hqsam.training.step import Step
    from perf.train.steps import Ours

    device = torch.device("cpu" if options.dry else "cuda")
    with (
        tempfile.TemporaryDirectory() as name,
        guard.deterministic(1 if options.dry else TrainOptions().threads),
    ):
        ours = Ours(
            options.backbone,
            device.type,
            precision="bf16",
            batch_size=options.batch,
            compile=options.compile,
        )
        checks.compile_encoder(ours.model, ours.options)
        step = Step(ours.model, ours.options, ours.step.group, options.micro)
        write_set(Path(name), 2 * options.batch, options.width, options.height, ours.model.backbone)
        data = TrainingSet(shards=Path(name) / "shards", prompts=Path(name) / "prompts")
        feed = OnlineFeed(data, ours.model, options.threads, options.micro, bf16=True)
        halves = [[Item(n, 0) for n in range(k, k + options.batch)] for k in (0, options.batch)]
        plan = [halves[n % 2] for n in range(WARM_UP + options.steps)]

        def learn(batch: Any) -> None:
            step.take(ours.state, batch, feed.encoded(batch))

        rates = [matrix_rate(options.matrix, device)]
        first = next(iter(feed.batches(plan[:1])))
        times = [seconds(lambda: learn(first), device) for _ in plan][WARM_UP:]
        memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
        rates.append(matrix_rate(options.matrix, device))
        loading = _pace(iter(feed.batches(3 * plan)), lambda _: None, device)
        whole = _pace(iter(feed.batches(plan)), learn, device)
        data.close()
    flops = encoder_flops(ours.model.sam.image_encoder) * options.batch
    return {
        "rate": max(rates),
        "step_s": median(times),
        "flops": flops,
        "memory_gib": memory,
        "load_s": loading,
        "whole_s": whole,
    }


def _pace(batches: Any, work: Callable[[Any], None], device: torch.device) -> float:
    """Mean seconds per batch after the warm-up, in which the threads get ahead by no more than they may."""
    for _ in range(WARM_UP):
        work(next(batches))
    count = 0

    def rest() -> None:
        nonlocal count
        for batch in batches:
            work(batch)
            count += 1

    return seconds(rest, device) / count


def rows_of(found: dict[str, float], name: str, options: argparse.Namespace) -> list[Row]:
    """The table; a dry run makes no promises."""
    share = found["flops"] / found["step_s"] / found["rate"]
    minutes = PICTURES / options.batch * found["whole_s"] / 60
    loader = found["step_s"] / found["load_s"]
    pace = f"{options.batch / found['load_s']:.0f} views/s"
    rows = [
        Row(f"{name}: bf16 matrix rate", f"{found['rate'] / 1e12:.3g} TFLOP/s"),
        Row(
            f"{name}: step, batch at hand",
            f"{1000 * found['step_s']:.0f} ms, {found['memory_gib']:.1f} GiB",
        ),
        Row(f"{name}: whole step from the shards", f"{1000 * found['whole_s']:.0f} ms"),
    ]
    roofline = (
        f"{name}: encoder FLOPs of a step over what the matrix rate allows, times {SHARE:g} %"
    )
    if options.dry:
        return [
            *rows,
            Row(roofline, f"{100 * share / SHARE:.2f} x"),
            Row(f"loader against steps ({pace})", f"{loader:.2f} x"),
        ]
    return [
        *rows,
        Row.at_least(roofline, 100 * share / SHARE, 1.0),
        Row.at_most(f"{name}: 12 epochs of 44,320 pictures, whole steps", minutes, MINUTES, "min"),
        Row.at_least(f"loader, {options.threads} threads, against the steps ({pace})", loader, 1.0),
    ]


def main() -> int:
    """Print the table; 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit_l")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.set_defaults(matrix=8192, width=2048, height=1536)
    options = parser.parse_args()
    if options.dry:
        vars(options).update(DRY)
    elif not torch.cuda.is_available():
        return finish(
            [Row("training on a GPU", "not measured: torch finds no CUDA device")], options.json
        )
    found = measure(options)
    machine = "dry run on a CPU" if options.dry else torch.cuda.get_device_name()
    rows = rows_of(found, f"{machine}, {options.backbone}, bf16, batch {options.batch}", options)
    return finish(rows, options.json, found=found, cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
