"""Ten prompt settings and three systems on one encoding of each image, against one setting alone.

    python -m perf.model.bench_prompts [--json FILE] [--full]

Each run is a predict stage in a fresh process: imports, weights, images, encoder, decoders, masks; what is compared is its processor
time, all threads together. The settings take turns. Target: ten settings cost at most twice what one does, on ViT-B and on the miniature.

one        the box of each object, for SAM, the HQ token and their sum
ten        also two noised boxes, points_1, 3, 5, 10 and 10+5 (three trials each but the first), two coarse masks: 18 prompts an object
inside     the same two without the start of the process: only told, since a miniature's encoder costs as much as one prompt
second     another head on the same encoder, which finds the encodings (`hqsam.prediction.encodings`), against encoding again
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from perf.table import Row, finish

ONE = ("gt_box",)
TEN = (
    *ONE,
    "box_noise_0.2",
    "box_noise_0.4",
    "points_1",
    "points_3",
    "points_5",
    "points_10",
    "points_10+5",
    "coarse_eroded_2",
    "coarse_dilated_2",
)
TARGET = 2.0
SIZE = (480, 640)


def write_images(folder: Path, count: int) -> None:
    """Write pictures of one ragged object each, with their masks."""
    import cv2

    from hqsam_datasets.formats.images import encode_png

    rng = np.random.default_rng(0)
    for n in range(count):
        mask = np.zeros(SIZE, np.uint8)
        centre = tuple(int(v) for v in rng.integers(200, 280, 2))
        cv2.ellipse(mask, centre, (150, 90), float(rng.uniform(0, 180)), 0, 360, 255, -1)
        noise = rng.integers(0, 90, (*SIZE, 3)).astype(np.uint8)
        for name, data in (("images", mask[..., None] // 2 + noise), ("masks", mask)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{n:03d}.png").write_bytes(encode_png(data))


def prepare(root: Path, backbone: str, count: int) -> None:
    """Index the pictures with one and with ten prompt sets, and write weights and heads."""
    import torch

    from hqsam.model import checkpoint
    from hqsam.model.build import build_model
    from hqsam.model.options import ModelOptions
    from hqsam_datasets.benchmarks.base import BenchmarkOptions
    from hqsam_datasets.prepare.index import index

    write_images(root / "in", count)
    for name, sets in (("one", ONE), ("ten", TEN)):
        index(
            "own",
            root=root / "in",
            out=root / name / "own",
            options=BenchmarkOptions(prompt_sets=sets, images="images", masks="masks"),
            progress=lambda *_: None,
            kind="folder",
        )
    base = build_model(ModelOptions(backbone=backbone), seed=0)
    torch.save(base.sam.state_dict(), root / "sam.pth")
    for variant in ("hq", "fusion_mask"):
        model = ModelOptions(backbone=backbone, checkpoint=root / "sam.pth", variant=variant)
        checkpoint.save_head(
            root / variant / "hq_head.safetensors",
            build_model(model, seed=0).head,
            metadata={"backbone": backbone, "variant": variant},
        )


def stage(root: Path, backbone: str, sets: str, variant: str, encodings: str) -> float:
    """Predict, as the stage does; gives the processor seconds without imports."""
    from hqsam.model.options import ModelOptions
    from hqsam.prediction.benchmark import predict
    from hqsam.prediction.options import PredictOptions

    start = time.process_time()
    with tempfile.TemporaryDirectory(dir=root) as out:
        predict(
            benchmark=root / sets / "own",
            model=ModelOptions(backbone=backbone, checkpoint=root / "sam.pth", variant=variant),
            head=root / variant,
            options=PredictOptions(threads=1, device="cpu", batch_images=4),
            out=Path(out) / "own-x",
            progress=lambda *_: None,
            encodings=root / "encodings" if encodings == "shared" else None,
        )
    return time.process_time() - start


def timed(root: Path, *words: str) -> tuple[float, float]:
    """Run `stage` in a fresh process; gives the processor seconds of the process, and those inside."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "perf.model.bench_prompts", "--stage", str(root), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return seconds, float(done.stdout.split()[-1])


def measure(backbone: str, count: int, rounds: int) -> dict[str, Any]:
    """Time the runs in turn; medians over the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, backbone, count)
        runs: dict[str, list[tuple[float, float]]] = {"one": [], "ten": []}
        for _ in range(rounds):
            for name, found in runs.items():
                found.append(timed(root, backbone, name, "hq", "alone"))
        first = timed(root, backbone, "one", "hq", "shared")
        second = timed(root, backbone, "one", "fusion_mask", "shared")
        again = timed(root, backbone, "one", "fusion_mask", "alone")
    whole = {name: statistics.median(found[0] for found in of) for name, of in runs.items()}
    inside = {name: statistics.median(found[1] for found in of) for name, of in runs.items()}
    return {
        "images": count,
        "seconds": whole,
        "inside": inside,
        "first": first[1],
        "second": second[1],
        "again": again[1],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure both backbones; `--stage` is one run in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--full", action="store_true", help="more images and rounds")
    parser.add_argument("--stage", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage:
        root, *words = options.stage
        print(stage(Path(root), *words))
        return 0
    rows, detail = [], {}
    for backbone, count in (("vit_b", 8 if options.full else 2), ("nano", 16)):
        found = measure(backbone, count, 3 if options.full else 1)
        detail[backbone] = found
        ratio = found["seconds"]["ten"] / found["seconds"]["one"]
        within = found["inside"]["ten"] / found["inside"]["one"]
        what = f"{backbone}, {count} images: 10 settings x 3 systems, against one setting"
        rows += [
            Row.at_most(what, ratio, TARGET, "times"),
            Row(f"{backbone}: the same without the start of the process", f"{within:.2f} times"),
            Row(
                f"{backbone}: another head that finds the encodings, against encoding again",
                f"{found['second'] / found['again']:.2f} times",
            ),
        ]
    return finish(rows, options.json, runs=detail)


if __name__ == "__main__":
    sys.exit(main())
