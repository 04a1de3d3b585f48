"""Predictions: how long the device waits for everything else, by a stand-in whose calls take a given time.

    python -m perf.model.bench_waiting [--before REVISION] [--json FILE] [--quick]

Images of 480 x 640 with 300 boxes each, three systems, as on LVIS. The stand-in sleeps where a model
would compute: 25 ms an image for encoding, 3 ms for each pass of 16 prompts (82 ms an image). Its
logits are blobs of 4,900 pixels. Reading, decoding PNGs, masks, rows and parquet are real, on the
cores that are there. "Simulated" replaces the upscaling by a sleep of the kernel's time per mask, on
eight threads: what eight cores would give. Both builds in turn, each in a fresh process; the one
before gets an eighth of the images.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perf.model import measure
from perf.revisions import BEFORE, checkout
from perf.table import Row, finish

IMAGES, PROMPTS, WAITING = 256, 300, 10.0
ENCODE_S, PASS_S, MASK_S = 0.025, 0.003, 0.00006
SYSTEMS = ("sam", "hq_token", "hq_sum")
HEIGHT, WIDTH = 480, 640


def benchmark(folder: Path, images: int) -> None:
    """Writes a folder of the index stage: pictures, each with the boxes of a detector."""
    from hqsam_base import atomic
    from hqsam_datasets.formats import manifest
    from hqsam_datasets.formats.images import encode_png
    from hqsam_datasets.formats.tar_writer import write_tar

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    names = [f"image_{n:05d}" for n in range(images)]
    write_tar(folder / "images.tar", [(f"{name}.png", encode_png(pixels)) for name in names])
    image = {"shard": "images.tar", "height": HEIGHT, "width": WIDTH, "video": None, "frame": None}
    image |= {"video_id": None, "pixel_digest": "0", "pdq": b"", "pdq_quality": 0, "tiles": b""}
    rows = [
        image | {"key": name, "member": f"{name}.png", "image_id": n}
        for n, name in enumerate(names)
    ]
    box = dict.fromkeys(manifest.schema("prompts").names)
    box |= {"prompt_set": "boxes", "kind": "box", "height": HEIGHT, "width": WIDTH}
    box |= {"x0": 100.0, "y0": 100.0, "x1": 200.0, "y1": 190.0}
    prompts = [
        box | {"prompt_id": f"{name}-{n:03d}", "key": name}
        for name in names
        for n in range(PROMPTS)
    ]
    manifest.write_rows(folder / "images.parquet", "images", rows)
    manifest.write_rows(folder / "prompts.parquet", "prompts", prompts)
    atomic.write_json(folder / "index.json", {"benchmark": "stand_in"})


def stand_in(simulated: bool, clock: list[float]) -> Any:
    """An opened model that sleeps; `clock` gets the seconds inside its calls."""
    from hqsam.model.preprocess import Frame
    from hqsam.prediction import postprocess
    from hqsam.systems import Decoded, Promptable
    from perf.model.bench_masks import blobs

    frame, logits = Frame(HEIGHT, WIDTH, 1024), blobs(15.7)[:16]
    patch = postprocess.mask_patch(logits[0], frame)

    def on_device(seconds: float) -> None:
        start = time.perf_counter()
        time.sleep(seconds)
        clock.append(time.perf_counter() - start)

    class StandIn(Promptable):
        def prepare(self, image: Any) -> Any:
            return frame.image(image)

        def encode(self, prepared: Sequence[Any]) -> Sequence[Any]:
            on_device(ENCODE_S * len(prepared))
            return prepared

        def decode(self, image: Any, prompts: Sequence[Any]) -> Mapping[str, Decoded]:
            on_device(PASS_S)
            few = logits[: len(prompts)]
            return {name: Decoded(few, [0.9] * len(prompts)) for name in SYSTEMS}

        def to_image(self, image: Any, values: Any) -> Any:
            if simulated:
                time.sleep(MASK_S)
                return patch
            return postprocess.mask_patch(values, frame)

    if not hasattr(postprocess, "mask_codes"):
        return StandIn()
    made = postprocess.MaskCodes.of([patch] * 16)

    class Together(StandIn):
        def to_codes(self, image: Any, values: Any) -> Any:
            if simulated:
                time.sleep(MASK_S * len(values))
                few = np.arange(len(values))
                return postprocess.MaskCodes(made.codes.take(few), made.areas[few])
            return postprocess.mask_codes(values, frame) or super().to_codes(image, values)

    return Together()


def child(folder: str, simulated: bool) -> dict[str, float]:
    """Predict the folder; the share of time in which the device waited, images a second, processor time an image."""
    import torch

    from hqsam import systems
    from hqsam.model.options import ModelOptions
    from hqsam.prediction import parts, passes, postprocess
    from hqsam.prediction.options import PredictOptions

    if simulated and hasattr(passes, "os"):
        passes.os.sched_getaffinity = lambda _: range(8)
    torch.set_num_threads(8 if simulated else 2)
    clock: list[float] = []
    one = stand_in(simulated, clock)
    kind = type("Kind", (), {"open": lambda *_: one, "systems": lambda *_: ()})()
    systems.load = lambda _: kind  # type: ignore[assignment]
    if hasattr(postprocess, "mask_codes"):
        from hqsam_base import compiled

        compiled.fill(postprocess.KERNELS)
    options = PredictOptions(threads=8 if simulated else 2)
    entry = systems.Entry("stand_in", systems.SystemOptions(kind="stand_in"))
    context = systems.Context(ModelOptions(backbone="nano"), Path(folder), options)
    with passes.BenchmarkImages(Path(folder)) as images, tempfile.TemporaryDirectory() as out:
        job = parts.Job(Path(folder), context, (entry,))
        told = {"told": lambda _: None} if hasattr(passes, "Figures") else {}
        wall, processor = time.perf_counter(), time.process_time()
        parts.write_parts(job, images, Path(out), what="x", progress=lambda *_: None, **told)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        return {
            "waited": 100 * (1 - sum(clock) / wall),
            "images_per_s": len(images) / wall,
            "processor_ms": 1000 * processor / len(images),
        }


def rows(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Row]:
    """The table."""
    table = []
    names = {"real": "on the cores that are there", "simulated": "on 8 cores"}
    for way, threads in ((way, names[way]) for way in found):
        before, now = found[way]["before"], found[way]["now"]
        what, was = f"prediction, the device waits, {threads}", f"{before['waited']:.0f} %"
        share = Row(what, f"{now['waited']:.3g} %", before=was)
        if way == "simulated":
            share = Row.at_most(what, now["waited"], WAITING, "%", before=was)
        rates = (f"{one['images_per_s']:.2f} images/s" for one in (before, now))
        told = dict(zip(("before", "now"), rates, strict=True))
        ratio = f"{now['images_per_s'] / before['images_per_s']:.2f} x"
        table += [share, Row(f"prediction, images a second, {threads}", ratio, **told)]
    before, now = (found["real"][build]["processor_ms"] for build in ("before", "now"))
    told = {"before": f"{before:.0f} ms", "now": f"{now:.0f} ms"}
    return [
        *table,
        Row.at_least("prediction, processor time an image", before / now, 0, **told),
    ]


def main() -> int:
    """Print the rows; 1 if the device waits too long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", default=BEFORE, metavar="REVISION")
    parser.add_argument("--quick", action="store_true", help="64 images, the real cores alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, way = options.child
        print(json.dumps(child(folder, way == "simulated")))
        return 0
    module, images = "perf.model.bench_waiting", IMAGES // 4 if options.quick else IMAGES
    with (
        checkout(options.before) as tree,
        tempfile.TemporaryDirectory() as few,
        tempfile.TemporaryDirectory() as many,
    ):
        benchmark(Path(few), images // 8)
        benchmark(Path(many), images)
        found = {
            way: {
                "before": measure.in_child(module, few, way, tree=tree),
                "now": measure.in_child(module, many, way),
            }
            for way in (("real",) if options.quick else ("real", "simulated"))
        }
    return finish(rows(found), options.json, results=found, cpu=measure.processor())


if __name__ == "__main__":
    sys.exit(main())
