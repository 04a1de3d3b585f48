"""Interactive prompt sets: the clicks and masks are those of `segment_anything`'s own predictor, used click by click."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hqsam.model import checkpoint
from hqsam.model.backbones import bundled_weights
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam.prediction.benchmark import predict
from hqsam.prediction.options import PredictOptions
from hqsam_base import rle
from hqsam_base.centre import centre_point, next_click
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.formats.images import encode_png
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.prepare.index import index
from hqsam_metrics.base import score_options
from hqsam_metrics.benchmark import score_benchmark
from hqsam_metrics.scores.masks import SCORE

CLICKS = 4
MODEL = ModelOptions(backbone="nano", checkpoint=bundled_weights("nano"))


def quiet(done: int, total: int, what: str) -> None:
    assert done <= total and what


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two images of two objects each, indexed, predicted and scored."""
    root = tmp_path_factory.mktemp("clicks")
    rng = np.random.default_rng(0)
    images = []
    for n in range(2):
        mask = np.zeros((70, 100), np.uint8)
        mask[10 : 45 + n, 8 : 50 + 9 * n] = 255
        mask[25:40, 20:30] = 0
        mask[52:66, 70:92] = 255
        noise = rng.integers(0, 60, (70, 100, 3)).astype(np.uint8)
        images.append(mask[..., None] // 2 + noise)
        for name, data in (("images", images[-1]), ("masks", mask)):
            (root / "in" / name).mkdir(parents=True, exist_ok=True)
            (root / "in" / name / f"{n}.png").write_bytes(encode_png(data))
    options = BenchmarkOptions(
        prompt_sets=("gt_box", f"clicks_{CLICKS}"), images="images", masks="masks"
    )
    at = {"root": root / "in", "out": root / "own", "options": options}
    found = index("own", **at, progress=quiet, kind="folder")
    assert found["clicks"] == {f"clicks_{CLICKS}": CLICKS} and "trials" not in found
    model = build_model(MODEL, seed=0)
    checkpoint.save_head(root / "m" / "hq_head.safetensors", model.head, metadata={})
    predict(
        benchmark=root / "own",
        model=MODEL,
        head=root / "m",
        options=PredictOptions(threads=1, prompts_per_pass=3),
        out=root / "own-nano",
        progress=quiet,
    )
    score_benchmark(
        benchmark=root / "own",
        predictions=root / "own-nano",
        options=score_options({"metric": "masks", "version": SCORE.version}),
        out_json=root / "scores.json",
        out=root / "scores",
        progress=quiet,
    )
    return {
        "images": images,
        "model": model.eval(),
        "instances": read_rows(root / "own" / "instances.parquet"),
        "rows": [
            r for r in read_rows(root / "own-nano" / "part-00000.parquet") if "~" in r["prompt_id"]
        ],
        "results": json.loads((root / "scores.json").read_text())["results"],
        "units": read_rows(root / "scores" / "instances.parquet"),
    }


def mask_of(row: dict[str, Any]) -> np.ndarray:
    return rle.decode(row["rle"], height=row["height"], width=row["width"])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_sam_is_sampredictor_click_by_click(run: dict[str, Any]) -> None:
    """Same points, the logits of the prediction before as mask input, a single mask; up to pixels on the threshold."""
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    from segment_anything import SamPredictor

    mine = {(r["prompt_id"], r["system"]): mask_of(r) for r in run["rows"]}
    assert len(mine) == len(run["instances"]) * CLICKS * 3
    predictor = SamPredictor(run["model"].sam)
    for row in run["instances"]:
        predictor.set_image(run["images"][int(row["key"][-1])])
        target = mask_of(row)
        points, labels, logits = [centre_point(target)[0]], [1], None
        for click in range(1, CLICKS + 1):
            masks, _, logits = predictor.predict(
                point_coords=np.array(points),
                point_labels=np.array(labels),
                mask_input=logits,
                multimask_output=False,
            )
            name = f"{row['instance_id']}-clicks_{CLICKS}~{click}"
            assert iou(mine[name, "sam"], masks[0]) > 0.995 or not masks[0].any(), name
            # Go on with ours: one pixel more or less may move the next click.
            point, positive = next_click(pred=mine[name, "sam"], target=target)
            points.append(point)
            labels.append(int(positive))


def test_every_system_has_clicks_of_its_own_and_they_move_the_masks(run: dict[str, Any]) -> None:
    for system in ("sam", "hq_token", "hq_sum"):
        rows = [r for r in run["rows"] if r["system"] == system]
        first = {
            r["prompt_id"].partition("~")[0]: r["rle"]
            for r in rows
            if r["prompt_id"].endswith("~1")
        }
        last = {
            r["prompt_id"].partition("~")[0]: r["rle"]
            for r in rows
            if r["prompt_id"].endswith(f"~{CLICKS}")
        }
        assert len(first) == len(last) == len(run["instances"])
        assert all(first[name] != last[name] for name in first)


def test_scores_are_those_of_the_definitions(run: dict[str, Any]) -> None:
    truth = {r["instance_id"]: mask_of(r) for r in run["instances"]}
    for result in (r for r in run["results"] if r["prompt_set"] != "gt_box"):
        table = {name: [0.0] * CLICKS for name in truth}
        for row in (r for r in run["rows"] if r["system"] == result["system"]):
            name, _, click = row["prompt_id"].rpartition("~")
            instance = name.rpartition("-clicks")[0]
            table[instance][int(click) - 1] = iou(mask_of(row), truth[instance])
        reached = [
            next((k for k, value in enumerate(ious, 1) if value >= 0.85), None)
            for ious in table.values()
        ]
        found = result["metrics"]
        assert found["NoC85"] == pytest.approx(np.mean([k or CLICKS for k in reached]))
        assert found["NoF85"] == sum(k is None for k in reached)
        for k in range(CLICKS):
            assert found[f"mIoU@{k + 1}"] == pytest.approx(np.mean([v[k] for v in table.values()]))
        assert result["protocol"]["clicks"] == CLICKS
        assert "logits of the prediction before" in result["protocol"]["clicks_input"]
        units = [
            u
            for u in run["units"]
            if (u["prompt_set"], u["system"]) == (result["prompt_set"], result["system"])
        ]
        assert sorted(u["iou"] for u in units) == pytest.approx(
            sorted(v[-1] for v in table.values())
        )
        assert all(u["biou"] is None for u in units)
    assert SCORE.value("NoC90").scale.lower_is_better and SCORE.value("mIoU@2").detail
    assert SCORE.value("mIoU@5").scale.factor == 100.0
