"""What an image encoder in bfloat16 or 8-bit integers does to mIoU and mBIoU, on the four HQ sets of a pipeline that has run.

    python -m perf.model.bench_precision [--root .] [--model NAME] [--device auto] [--json FILE]
    [--full]

The predict stage's own code runs twice on each indexed set with the trained model, with the encoder
in float32, in bfloat16 and in 8-bit integers; all are decoded in float32 and scored by the score
stage's code. Values are means over the sets, for boxes. Target: integers move a mean mBIoU by at most 0.2
points. `folded` is bfloat16 with the form of the attention that a GPU takes
(`hqsam/model/attention.py`). ROOT is a checkout after `dvc repro`; where its sets or its trained
model are missing the script says so and measures nothing.

`--full` adds ViT-B with random weights: how far bfloat16 and integers move the features and the
logits of eight boxes.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perf.model.measure import processor
from perf.table import Row, finish

if TYPE_CHECKING:
    from hqsam_pipelines.config.params import Params

SETS = ("dis_vd", "coift", "hrsod", "thinobject5k_test")
WAYS = ("float32", "bfloat16", "folded", "int8")
METRICS = ("mIoU", "mBIoU")
INT8_POINTS = 0.2
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Work:
    """What is judged.

    Attributes:
        root: Checkout whose pipeline has run.
        params: Its ``params.yaml``.
        model: Entry of ``models``.
        device: Of the predict stage.
    """

    root: Path
    params: Params
    model: str
    device: str

    @property
    def missing(self) -> list[str]:
        """Files that the pipeline has not made yet."""
        needed = [f"data/benchmarks/{name}/index.json" for name in SETS] + [
            f"models/{self.model}/hq_head.safetensors"
        ]
        return [path for path in needed if not (self.root / path).is_file()]

    def scores(self, way: str) -> dict[str, Scores]:
        """Percent, by set, system and metric."""
        with tempfile.TemporaryDirectory() as folder, _attention(way):
            return {name: self._set(name, way, Path(folder)) for name in SETS}

    def _set(self, benchmark: str, way: str, folder: Path) -> Scores:
        from hqsam.prediction.benchmark import predict
        from hqsam_metrics.benchmark import score_benchmark

        data, name = self.root / "data" / "benchmarks" / benchmark, f"{benchmark}-{self.model}"
        model = self.params.model(self.model)
        if model.checkpoint is not None:
            model = model.model_copy(update={"checkpoint": self.root / model.checkpoint})
        precision = "bfloat16" if way == "folded" else way
        options = self.params.predict(benchmark).model_copy(
            update={"precision": precision, "device": self.device}
        )
        predict(
            benchmark=data,
            model=model,
            head=self.root / "models" / self.model,
            options=options,
            out=folder / "predictions" / name,
            progress=_silent,
        )
        score_benchmark(
            benchmark=data,
            predictions=folder / "predictions" / name,
            options=self.params.score(benchmark),
            out_json=folder / f"{name}.json",
            out=folder / "scores" / name,
            progress=_silent,
        )
        return _read(folder / f"{name}.json")


def _read(path: Path) -> Scores:
    from hqsam_base.atomic import read_json

    results = read_json(path, cure="score again")["results"]
    boxes = [one for one in results if one["prompt_set"] == "gt_box"]
    return {one["system"]: {m: 100 * one["metrics"][m] for m in METRICS} for one in boxes}


@contextlib.contextmanager
def _attention(way: str) -> Iterator[None]:
    """Make a CPU take the GPU's form of the attention for as long as `folded` is measured."""
    from hqsam.model import attention

    before = attention._attend_by_rows
    if way == "folded":
        attention._attend_by_rows = attention._attend_folded
    try:
        yield
    finally:
        attention._attend_by_rows = before


def _silent(done: int, total: int, what: str) -> None:
    del done, total, what


def measure(work: Work) -> dict[str, Any]:
    """Scores by way, set, system, metric; and their means over the sets."""
    found = {way: work.scores(way) for way in WAYS}
    systems = list(found["float32"][SETS[0]])
    means = {
        way: {
            s: {m: float(np.mean([by_set[name][s][m] for name in SETS])) for m in METRICS}
            for s in systems
        }
        for way, by_set in found.items()
    }
    return {"model": work.model, "device": work.device, "sets": found, "means": means}


def table(found: dict[str, Any]) -> list[Row]:
    """A line for each system and metric, then the largest change that any set shows."""
    means, rows, ways = found["means"], [], [way for way in WAYS[1:] if way in found["means"]]
    for system, metrics in means["float32"].items():
        for metric, single in metrics.items():
            for way in ways:
                change = means[way][system][metric] - single
                what = f"{found['model']}, four HQ sets, {system}: change of {metric}, {way}"
                peer = f"float32: {single:.2f}"
                rows.append(
                    Row.at_most(what, abs(change), INT8_POINTS, "points", peer=peer)
                    if (way, metric) == ("int8", "mBIoU")
                    else Row(what, f"{change:+.2f} points", peer=peer)
                )
    change, where = max(
        (
            abs(found["sets"][way][name][system][metric] - value),
            f"{name}, {system}, {metric}, {way}",
        )
        for way in ways
        for name, systems in found["sets"]["float32"].items()
        for system, metrics in systems.items()
        for metric, value in metrics.items()
    )
    return [*rows, Row(f"largest change of a single set: {where}", f"{change:.2f} points")]


def precision_rows(root: Path, model: str | None, device: str) -> tuple[list[Row], dict[str, Any]]:
    """The table and the numbers behind it; one line that says why if the pipeline has not run in ``root``."""
    from hqsam_pipelines.config.params import Params

    unmeasured = "mIoU with the encoder in bfloat16: not measured"
    if not (root / "params.yaml").is_file():
        return [Row(unmeasured, "the root has no params.yaml: give --root")], {}
    params = Params.load(root / "params.yaml")
    work = Work(root, params, model or params.models[0], device)
    if work.missing:
        return [Row(unmeasured, f"{work.missing[0]} is missing: run `dvc repro predict` there")], {}
    found = measure(work)
    return table(found), found


def logits(backbone: str, way: str, boxes: int = 8) -> dict[str, float]:
    """Largest differences with random weights, relative to the largest value: features and HQ-SAM's logits."""
    import torch

    from hqsam.api.predictor import decode
    from hqsam.model.build import build_sam_hq
    from hqsam.model.precision import use_int8

    model, generator = build_sam_hq(backbone), torch.Generator().manual_seed(0)
    side = model.backbone.image_size
    image = (
        torch.rand(1, 3, side // 8, side // 8, generator=generator)
        .mul(255)
        .repeat_interleave(8, 2)
        .repeat_interleave(8, 3)
    )
    corners = torch.rand(boxes, 2, 2, generator=generator).mul(side).sort(dim=1).values
    found = []
    for changed in (False, True):
        if changed and way == "int8":
            use_int8(model.sam.image_encoder)
        with torch.inference_mode():
            with torch.autocast("cpu", torch.bfloat16, enabled=changed and way == "bfloat16"):
                encoded = model.encode(model.preprocess(image))
            prompts = model.embed_prompts(boxes_P4=corners.reshape(boxes, 4))
            masks = decode(model, encoded.float(), prompts, "hq_sum").logits_PKhw
            found.append((encoded.final_BCHW.float(), encoded.early_BVHW.float(), masks))
    names = ("final feature", "early feature", "logits")
    return {
        name: float((a - b).abs().max() / a.abs().max())
        for name, a, b in zip(names, *found, strict=True)
    }


def main() -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--model", help="entry of `models` in params.yaml; default: the first")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, found = precision_rows(options.root, options.model, options.device)
    result = {"precision": found}
    if options.full:
        result["logits"] = {way: logits("vit_b", way) for way in ("bfloat16", "int8")}
        for way, gaps in result["logits"].items():
            shares = ", ".join(f"{name} {share:.1%}" for name, share in gaps.items())
            what = (
                f"vit_b, random weights, {way}: largest difference, as a share of the largest value"
            )
            rows.append(Row(what, shares))
    return finish(rows, options.json, results=result, cpu=processor())


if __name__ == "__main__":
    sys.exit(main())
