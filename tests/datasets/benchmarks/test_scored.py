"""The scorer reads what the index stage writes: perfect predictions for the indexed prompts get high scores.

For each prompt the prediction is the ground-truth mask whose box fits the prompt best. What is then
lost is the fault of the simulated detectors and trackers alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hqsam_base import rle
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.formats.manifest import read_rows, write_table
from hqsam_datasets.prepare.index import index
from tests.datasets.embedded_tree import indexed, params, tree

pytest.importorskip("hqsam_metrics.benchmark")
from hqsam_metrics.base import score_options
from hqsam_metrics.benchmark import score_benchmark

Row = dict[str, Any]
PARAMS = params()


def oracle(folder: Path, out: Path) -> None:
    """Write predictions that are the best-fitting ground truth."""
    truths: dict[str, list[Row]] = {}
    for row in read_rows(folder / "instances.parquet"):
        truths.setdefault(row["key"], []).append(row)
    predictions = []
    for prompt in read_rows(folder / "prompts.parquet"):
        counts = best_fit(prompt, truths.get(prompt["key"], []))
        predictions.append(
            {
                "prompt_id": prompt["prompt_id"],
                "key": prompt["key"],
                "prompt_set": prompt["prompt_set"],
                "system": "hq_token",
                "rle": counts,
                "height": prompt["height"],
                "width": prompt["width"],
                "iou_pred": 1.0,
                "mask_area": rle.area(counts, height=prompt["height"], width=prompt["width"]),
            }
        )
    out.mkdir()
    write_table(out / "part-00000.parquet", predictions)
    info = {
        "model": "oracle",
        "systems": ["hq_token"],
        "resize": "stretch",
        "n_prompts": len(predictions),
    }
    (out / "predict.json").write_text(json.dumps(info))


def best_fit(prompt: Row, truths: list[Row]) -> str:
    named = [row["rle"] for row in truths if row["instance_id"] == prompt["instance_id"]]
    if named:
        return str(named[0])

    def fit(truth: Row) -> float:
        if truth["iscrowd"]:
            return 0.0
        mask = rle.decode(truth["rle"], height=truth["height"], width=truth["width"])
        if prompt["kind"] == "mask":
            other = rle.decode(prompt["rle"], height=prompt["height"], width=prompt["width"])
            return float((mask & other).sum() / (mask | other).sum())
        box = rle.tight_box(mask)
        return (
            0.0
            if box is None
            else box_iou(box, (prompt["x0"], prompt["y0"], prompt["x1"], prompt["y1"]))
        )

    best = max(truths, key=fit, default=None)
    if best is None or fit(best) < 0.3:
        return rle.encode(np.zeros((prompt["height"], prompt["width"]), dtype=bool))
    return str(best["rle"])


def box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


@pytest.mark.parametrize("name", sorted(PARAMS["benchmarks"]))
def test_perfect_predictions_score_high(name: str, tmp_path: Path) -> None:
    folder = indexed(name)
    oracle(folder, tmp_path / "predictions")
    score_benchmark(
        benchmark=folder,
        predictions=tmp_path / "predictions",
        options=score_options(PARAMS["benchmarks"][name]["score"]),
        out_json=tmp_path / "metrics.json",
        out=tmp_path / "scores",
        progress=lambda done, total, what: None,
    )
    results = json.loads((tmp_path / "metrics.json").read_text())["results"]
    assert {r["prompt_set"] for r in results} == set(
        PARAMS["benchmarks"][name]["index"]["prompt_sets"]
    )
    lowest = {"masks": 1.0, "coco": 0.75, "lvis": 0.75, "ytvis": 0.6, "davis": 0.85}
    metric = PARAMS["benchmarks"][name]["score"]["metric"]
    for result in results:
        assert result["n_scored"] == result["n_expected"] > 0
        for value_name in {"masks": ["mIoU", "mBIoU"], "davis": ["J&F"]}.get(
            metric, ["AP", "AP_B"]
        ):
            value = result["metrics"][value_name]
            assert lowest[metric] - 1e-9 <= value <= 1.0, (result["prompt_set"], value_name, value)


@pytest.mark.parametrize("name", ["coco", "lvis", "uvo", "hq_ytvis", "davis"])
def test_prompts_of_the_ground_truth_beside_the_detectors(name: str, tmp_path: Path) -> None:
    """Every set can have them; they have no detector's score, whatever the rule; trials are scored one by one."""
    section = PARAMS["benchmarks"][name]
    own = section["index"]["prompt_sets"][0]
    made = [
        "gt_box",
        "points_3",
        *(["previous_frame_box", "tracked_box"] if name in ("hq_ytvis", "davis") else []),
    ]
    folder = tmp_path / name
    found = index(
        name,
        root=tree(section["archive"]),
        out=folder,
        options=BenchmarkOptions(prompt_sets=(own, *made)),
        progress=lambda done, total, what: None,
    )
    assert found["trials"] == {"points_3": 3}
    assert found["n_prompts"]["points_3"] == 3 * found["n_prompts"]["gt_box"]
    oracle(folder, tmp_path / "predictions")
    score_benchmark(
        benchmark=folder,
        predictions=tmp_path / "predictions",
        options=score_options(section["score"]),
        out_json=tmp_path / "metrics.json",
        out=tmp_path / "scores",
        progress=lambda done, total, what: None,
    )
    results = json.loads((tmp_path / "metrics.json").read_text())["results"]
    assert {r["prompt_set"] for r in results} == {own, *made}
    rows = read_rows(tmp_path / "scores" / "instances.parquet")
    for result in (r for r in results if r["prompt_set"] != own):
        value = result["metrics"]["J&F" if name == "davis" else "AP"]
        assert value == pytest.approx(1.0), result["prompt_set"]
        mine = [r["unit"] for r in rows if r["prompt_set"] == result["prompt_set"]]
        assert len(mine) == len(set(mine)) > 0
    kept = {r["prompt_id"]: r for r in read_rows(folder / "prompts.parquet")}
    for row in read_rows(indexed(name) / "prompts.parquet"):
        assert kept[row["prompt_id"]] == row, "the detector's stay what they are"


def test_a_set_with_private_ground_truth_has_predictions_and_no_score(tmp_path: Path) -> None:
    """YouTube-VIS 2019 val: `annotations` is null; the stage must not stop the run."""
    root = Path(shutil.copytree(tree("hq_ytvis"), tmp_path / "root"))
    truth = json.loads((root / "ytvis_hq-test.json").read_text())
    (root / "valid.json").write_text(json.dumps({**truth, "annotations": None}))
    options = BenchmarkOptions(prompt_sets=("tracker_box",))
    folder = tmp_path / "ytvis19"
    index(
        "ytvis19",
        root=root,
        out=folder,
        options=options,
        progress=lambda done, total, what: None,
    )
    oracle(folder, tmp_path / "predictions")
    score_benchmark(
        benchmark=folder,
        predictions=tmp_path / "predictions",
        options=score_options(PARAMS["benchmarks"]["hq_ytvis"]["score"]),
        out_json=tmp_path / "metrics.json",
        out=tmp_path / "scores",
        progress=lambda done, total, what: None,
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["results"] == []
    assert read_rows(tmp_path / "scores" / "instances.parquet") == []
