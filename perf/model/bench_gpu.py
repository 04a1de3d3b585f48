"""GPU: image encoding of vit_l in bfloat16, batches of 8, against the original float32 predictor; and what bfloat16 does to mIoU.

    python -m perf.model.bench_gpu [--backbone vit_l] [--batch 8] [--rounds 7] [--root .] [--json
    FILE]
    python -m perf.model.bench_gpu --device cpu --backbone nano --batch 2 --rounds 1      # every line of it, without a GPU

The same uint8 images go, in turn, through `segment_anything`'s `SamPredictor.set_image` one by one
and through this project's predict stage in one batch, both from the pixels in the host's memory to
features on the device, with the same random weights, which move none of these times. Two rounds
warm up; then the clock runs from one synchronisation to the next, medians count. The encoders
alone, with their inputs on the device already, are timed by the device's own events, once more with
TF32 products on both sides (which the original leaves off). Target: 4 times as many images a second
from the pixels on, and features that agree.

Speed needs CUDA and says so where there is none. mIoU and mBIoU with the encoder in float32 and in
bfloat16 come from
`bench_precision` on the device, with the trained model of the pipeline in ROOT.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perf.model.bench_precision import precision_rows
from perf.model.measure import median, processor
from perf.table import Row, finish

TARGET, AGREEMENT = 4.0, 5.0
HEIGHT, WIDTH = 768, 1024
_WARM_UP = 2


@dataclass
class Race:
    """Both programs with the same weights on one device, and images that both get.

    Attributes:
        original: `segment_anything`'s predictor.
        engine: The predict stage's encoder, in bfloat16.
        images: uint8 ``[H, W, 3]`` each.
    """

    original: Any
    engine: Any
    images: list[Any]

    @property
    def device(self) -> Any:
        """Where both are."""
        return self.engine.model.device

    def run_original(self) -> Any:
        """Features of all images, one by one."""
        found = []
        for image in self.images:
            self.original.set_image(image)
            found.append(self.original.features)
        return found

    def run_ours(self) -> Any:
        """Features of all images as one batch, resized as the predict stage does it."""
        from hqsam.model.preprocess import Frame

        frame = Frame(HEIGHT, WIDTH, self.engine.model.backbone.image_size)
        import torch

        found = self.engine.encode([(frame, frame.image(image)) for image in self.images])
        return torch.cat([image.encoded.final_BCHW for image in found])

    def encoders(self) -> dict[str, Callable[[], Any]]:
        """Both encoders alone, on inputs that are on the device."""
        import torch

        model = self.engine.model
        side = model.backbone.image_size
        inputs = torch.randn(len(self.images), 3, side, side, device=self.device)

        def original() -> None:
            with torch.no_grad():
                for one in inputs.split(1):
                    self.original.model.image_encoder(one)

        def ours() -> None:
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16):
                model.encode(inputs)

        return {"original": original, "hqsam": ours}

    def difference(self) -> float:
        """Of the features, in percent of their root mean square."""
        import torch

        theirs, ours = torch.cat(self.run_original()).double(), self.run_ours().double()
        return float(100 * (theirs - ours).square().mean().sqrt() / theirs.square().mean().sqrt())


def prepare(backbone: str, batch: int, device: str) -> Race:
    """Random weights, the same on both sides."""
    from hqsam.model._torchvision import ensure_torchvision
    from hqsam.model.build import build_sam_hq
    from hqsam.prediction.options import PredictOptions
    from hqsam.systems.sam_hq import SamHQ

    ensure_torchvision()
    from segment_anything import SamPredictor

    model = build_sam_hq(backbone)
    sam = model.backbone.build()
    sam.load_state_dict(model.sam.state_dict())
    engine = SamHQ(
        model, PredictOptions(precision="bfloat16", device="cuda" if device == "cuda" else "cpu")
    )
    images = list(
        np.random.default_rng(0).integers(0, 256, (batch, HEIGHT, WIDTH, 3), dtype=np.uint8)
    )
    return Race(SamPredictor(sam.to(engine.model.device).eval()), engine, images)


def speed(race: Race, rounds: int) -> dict[str, Any]:
    """Images a second of both, from the pixels on and of the encoders alone; peak memory; how far the features are apart."""
    import torch

    cuda = race.device.type == "cuda"
    clock = _event_seconds if cuda else _wall_seconds
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if cuda else processor(),
        "batch": len(race.images),
        "features_differ_percent": race.difference(),
        "pixels": _rates(
            race, {"original": race.run_original, "hqsam": race.run_ours}, rounds, _wall_seconds
        ),
        "encoder": _rates(race, race.encoders(), rounds, clock),
    }
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        result["encoder_tf32"] = _rates(race, race.encoders(), rounds, clock)
    finally:
        torch.set_float32_matmul_precision(before)
    return result


def _rates(
    race: Race,
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    seconds: Callable[[Callable[[], Any]], float],
) -> dict[str, dict[str, float]]:
    """Images a second (median of the rounds) and peak device memory (GB) of calls that take turns."""
    import torch

    taken: dict[str, list[float]] = {name: [] for name in calls}
    peaks = dict.fromkeys(calls, 0.0)
    for n in range(_WARM_UP + rounds):
        for name, call in calls.items():
            if race.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            spent = seconds(call)
            if race.device.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated() / 1e9
            if n >= _WARM_UP:
                taken[name].append(spent)
    return {
        name: {"rate": len(race.images) / median(taken[name]), "peak_gb": peaks[name]}
        for name in calls
    }


def _wall_seconds(call: Callable[[], Any]) -> float:
    """From an idle device to an idle device."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else _nothing
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def _nothing() -> None:
    """A CPU has done its work when a call returns."""


def _event_seconds(call: Callable[[], Any]) -> float:
    """Between two events of the device's own queue."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000


def speed_rows(found: dict[str, Any], backbone: str, *, promised: bool) -> list[Row]:
    """The table; the promise is about a GPU only."""
    what = (
        f"{backbone}, bfloat16, batch {found['batch']}, against the original float32 predictor, "
        f"{found['device']}"
    )
    rows = [
        _ratio(
            f"{what}: from the pixels to the features", found["pixels"], TARGET if promised else 0
        )
    ]
    rows.append(_ratio(f"{what}: encoder alone", found["encoder"], 0))
    rows.append(_ratio(f"{what}: encoder alone, TF32 products allowed", found["encoder_tf32"], 0))
    if promised:
        peaks = " and ".join(
            f"{found['pixels'][name]['peak_gb']:.2f} GB" for name in ("original", "hqsam")
        )
        rows.append(
            Row(f"{backbone}: peak device memory, both models loaded, original and hqsam", peaks)
        )
    gap = found["features_differ_percent"]
    return [
        *rows,
        Row.at_most(
            f"{backbone}: root mean square difference of the features", gap, AGREEMENT, "%"
        ),
    ]


def _ratio(what: str, found: dict[str, dict[str, float]], target: float) -> Row:
    ours, theirs = found["hqsam"]["rate"], found["original"]["rate"]
    told = {"peer": f"original: {theirs:.3g} images/s", "now": f"{ours:.3g} images/s"}
    return Row.at_least(what, ours / theirs, target, **told)


def main() -> int:
    """Print the rows; 1 if a promise is missed."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit_l")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="checkout whose pipeline has run, for mIoU"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    why = _obstacle(options.device)
    if why is not None:
        what = (
            f"{options.backbone}, bfloat16, batch {options.batch}, against the original float32 "
            f"predictor: not measured"
        )
        return finish([Row(what, why)], options.json, cpu=processor())
    found = speed(prepare(options.backbone, options.batch, options.device), options.rounds)
    rows = speed_rows(found, options.backbone, promised=options.device == "cuda")
    torch.cuda.empty_cache()
    more, precision = precision_rows(options.root, None, options.device)
    return finish(
        [*rows, *more],
        options.json,
        results={"speed": found, "precision": precision},
        cpu=processor(),
    )


def _obstacle(device: str) -> str | None:
    """Why nothing can be measured, if so."""
    import torch

    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        return "no CUDA device"
    return (
        None
        if torch.cuda.is_bf16_supported()
        else f"{torch.cuda.get_device_name()} computes no bfloat16"
    )


if __name__ == "__main__":
    sys.exit(main())
