"""The protocol block is whole: whatever can move a number is in its hash, and every option is known to be in it or not."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam.prediction.benchmark import predict
from hqsam.prediction.options import PredictOptions
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.formats.images import encode_png
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.prepare.index import index
from hqsam_metrics.base import load_score, protocol_hash, score_names, score_options
from hqsam_metrics.benchmark import score_benchmark
from hqsam_pipelines.config import protocols
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.runner.codegraph import write_protocols
from tests import REPOSITORY

NANO = ModelOptions(
    backbone="nano", checkpoint=REPOSITORY / "hqsam" / "model" / "backbones" / "nano.safetensors"
)
SETS = ("gt_box", "coarse_dilated_3", "points_3")

INDEX = {
    "prompt_sets": ("gt_point",),
    "seed": 1,
    "box_side": 32,
    "images": "other_images",
    "masks": "other_masks",
    "skip": ("0",),
}
PREDICT = {
    "resize": "stretch",
    "mask_prompt": "logits",
    "precision": "bfloat16",
    "batch_images": 1,
    "prompts_per_pass": 1,
    "images_per_part": 1,
    "threads": 2,
}
SCORE: dict[str, Any] = {
    "output": "hq_sum",
    "dilation_ratio": 0.03,
    "strict_dilation_ratio": 0.01,
    "score_rule": "detector",
    "max_dets": 7,
    "class_agnostic": True,
}
"""Options that move numbers, with another value than the default."""

CANNOT_MOVE = {
    "index.expected_images": "a check of the count; it stops the run or changes nothing",
    "index.images_per_shard": "how many images lie in one tar; every image is read by its key",
    "index.annotations": "names a file of own data; its content is in ground_truth_digest",
    "index.detections": "names a file of own data; its content is in prompts_digest",
    "index.prompts": "a detector; its boxes are in prompts_digest, and its name is in the block",
    "predict.encodings_gb": "disk for features that models share; the masks are the same",
    "score.metric": "is the block's evaluator",
    "score.version": "is the block's evaluator_version: another than the code's is refused",
}
ELSEWHERE = {"predict.device": "a machine without a GPU cannot take the other value"}


def quiet(done: int, total: int, what: str) -> None:
    assert done <= total and what


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two blobs, others of other blobs, and a head."""
    root = tmp_path_factory.mktemp("protocol")
    rng = np.random.default_rng(0)
    for n in range(3):
        for prefix, shift in (("", 0), ("other_", 9)):
            mask = np.zeros((60, 90), np.uint8)
            mask[15 : 40 + n, 11 + shift : 50 + 8 * n] = 255
            mask[50:56, 70:81] = 255
            noise = rng.integers(0, 60, (60, 90, 3)).astype(np.uint8)
            picture = np.repeat(mask[..., None] // 2, 3, axis=2) + noise
            for folder, data in ((f"{prefix}images", picture), (f"{prefix}masks", mask)):
                (root / "in" / folder).mkdir(parents=True, exist_ok=True)
                (root / "in" / folder / f"{n}.png").write_bytes(encode_png(data))
    head = build_model(NANO, seed=0).head
    checkpoint.save_head(root / "m" / "hq_head.safetensors", head, metadata={})
    return root


def indexed(place: Path, name: str, **changes: Any) -> Path:
    options = {"prompt_sets": SETS, "images": "images", "masks": "masks", **changes}
    out = place / name / "own"
    index(
        "own",
        root=place / "in",
        out=out,
        options=BenchmarkOptions(**options),
        progress=quiet,
        kind="folder",
    )
    return out


def predicted(place: Path, benchmark: Path, name: str, **changes: Any) -> Path:
    out = place / name / "own-nano"
    options = PredictOptions(**{"threads": 1, **changes})
    predict(
        benchmark=benchmark,
        model=NANO,
        head=place / "m",
        options=options,
        out=out,
        progress=quiet,
    )
    return out


def scored(benchmark: Path, predictions: Path, at: Path, **options: Any) -> list[dict[str, Any]]:
    score_benchmark(
        benchmark=benchmark,
        predictions=predictions,
        options=score_options({"metric": "masks", "version": 1, **options}),
        out_json=at / "scores.json",
        out=at / "scores",
        progress=quiet,
    )
    results: list[dict[str, Any]] = json.loads((at / "scores.json").read_text())["results"]
    return results


def hashes(results: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(r["prompt_set"], r["system"]): r["protocol_hash"] for r in results}


@pytest.fixture(scope="module")
def base(place: Path) -> dict[str, Any]:
    benchmark = indexed(place, "base")
    predictions = predicted(place, benchmark, "base")
    results = scored(benchmark, predictions, place / "base")
    return {"benchmark": benchmark, "predictions": predictions, "hashes": hashes(results)}


def masks_of(folder: Path) -> dict[tuple[str, str], tuple[str, float]]:
    rows = [row for part in sorted(folder.glob("part-*.parquet")) for row in read_rows(part)]
    return {(row["prompt_id"], row["system"]): (row["rle"], row["iou_pred"]) for row in rows}


def test_every_option_is_in_the_block_or_has_its_reason() -> None:
    walked = {f"index.{name}" for name in BenchmarkOptions.model_fields}
    walked |= {f"predict.{name}" for name in PredictOptions.model_fields}
    for metric in score_names():
        walked |= {f"score.{field.name}" for field in fields(load_score(metric).options)}
    moving = {f"index.{name}" for name in INDEX} | {f"predict.{name}" for name in PREDICT}
    moving |= {f"score.{name}" for name in SCORE}
    assert not moving & set(CANNOT_MOVE)
    assert walked == moving | set(CANNOT_MOVE) | set(ELSEWHERE)


@pytest.mark.parametrize("option", INDEX)
def test_an_option_of_index_changes_the_hash(
    place: Path, base: dict[str, Any], option: str
) -> None:
    changes = {option: INDEX[option]}
    name = f"index-{option}"
    benchmark = indexed(place, name, **changes)
    predictions = predicted(place, benchmark, name)
    found = hashes(scored(benchmark, predictions, place / name))
    same = {key for key in found if found[key] == base["hashes"].get(key)}
    # A seed moves what is drawn, the size of a square what is measured in it; pictures and masks all.
    left = {"seed": {"gt_box"}, "box_side": {"coarse_dilated_3", "points_3"}}.get(option, set())
    assert {prompt_set for prompt_set, _ in same} == left


@pytest.mark.parametrize("option", PREDICT)
def test_an_option_of_predict_changes_the_hash(
    place: Path, base: dict[str, Any], option: str
) -> None:
    name = f"predict-{option}"
    predictions = predicted(place, base["benchmark"], name, **{option: PREDICT[option]})
    found = hashes(scored(base["benchmark"], predictions, place / name))
    same = {key for key in found if found[key] == base["hashes"][key]}
    kept = {"gt_box", "points_3"} if option == "mask_prompt" else set()
    assert {prompt_set for prompt_set, _ in same} == kept
    before, after = masks_of(base["predictions"]), masks_of(predictions)
    assert before.keys() == after.keys()
    for key in (key for key in before if "box" in key[0] and kept):
        assert before[key] == after[key], "what no mask prompt is for does not move"


def test_the_device_is_in_the_block(place: Path, base: dict[str, Any], tmp_path: Path) -> None:
    file = base["predictions"] / "predict.json"
    before = file.read_text()
    assert json.loads(before)["device"] == "cpu"
    try:
        file.write_text(json.dumps({**json.loads(before), "device": "cuda"}))
        found = hashes(scored(base["benchmark"], base["predictions"], tmp_path))
    finally:
        file.write_text(before)
    assert not set(found.values()) & set(base["hashes"].values())


def test_a_prompt_set_has_the_same_numbers_whatever_other_sets_a_run_has(
    place: Path, base: dict[str, Any]
) -> None:
    """Boxes of two sets must not share a pass: the last bits, and with them a pixel, would depend on it."""
    more = indexed(place, "more", prompt_sets=("gt_box", "box_noise_0.2", "box_noise_0.4"))
    found = masks_of(predicted(place, more, "more"))
    mine = {key: mask for key, mask in masks_of(base["predictions"]).items() if "box" in key[0]}
    assert mine and mine.items() <= found.items()


@pytest.mark.parametrize("metric", score_names())
def test_an_option_of_score_changes_the_hash(metric: str) -> None:
    score = load_score(metric)
    first = {"metric": metric, "version": score.version}
    known = [field.name for field in fields(score.options) if field.name in SCORE]
    assert "output" in known
    for name in known:
        if (metric, name) == ("ytvis", "dilation_ratio"):
            with pytest.raises(UserError, match="fixed"):
                score_options({**first, name: SCORE[name]})
        elif name != "output":  # of the block itself, see `test_what_is_hq_sam_is_in_the_block`
            a, b = (
                score.protocol(score_options({**first, **own})) for own in ({}, {name: SCORE[name]})
            )
            assert protocol_hash(a) != protocol_hash(b), name
    block = score.protocol(score_options(first))
    assert block["evaluator"].endswith(metric) and block["evaluator_version"] == score.version


def test_what_is_hq_sam_is_in_the_block(place: Path, base: dict[str, Any], tmp_path: Path) -> None:
    found = scored(base["benchmark"], base["predictions"], tmp_path, output=SCORE["output"])
    assert not set(hashes(found).values()) & set(base["hashes"].values())


def test_the_mean_of_trials_is_over_trials(
    place: Path, base: dict[str, Any], tmp_path: Path
) -> None:
    results = scored(base["benchmark"], base["predictions"], tmp_path)
    [points] = [r for r in results if (r["prompt_set"], r["system"]) == ("points_3", "sam")]
    [box] = [r for r in results if (r["prompt_set"], r["system"]) == ("gt_box", "sam")]
    assert points["protocol"]["trials"] == "mean of 3" and "trials" not in box["protocol"]
    rows = read_rows(tmp_path / "scores" / "instances.parquet")
    mine = [r for r in rows if (r["prompt_set"], r["system"]) == ("points_3", "sam")]
    trials = [np.mean([r["iou"] for r in mine if r["unit"].endswith(f"~{n}")]) for n in (1, 2, 3)]
    assert len(mine) == 3 * box["n_expected"] and len(set(trials)) == 3
    assert points["metrics"]["mIoU"] == pytest.approx(np.mean(trials), abs=1e-12)


# ---- presets ----


def with_protocol(name: str, benchmark: str, **changes: Any) -> Params:
    raw = yaml.safe_load((REPOSITORY / "configs" / "sample.yaml").read_text())
    entry = raw["benchmarks"][benchmark]
    kept = {key: entry["score"][key] for key in ("metric", "version", "output")}
    entry |= {"protocol": name, "predict": {}, "score": kept} | changes
    return Params.of(raw, Path("params.yaml"))


def test_the_paper_preset_is_what_the_official_code_does() -> None:
    dis, coco, lvis = (with_protocol("paper", name) for name in ("dis_vd", "coco", "lvis"))
    assert dis.index("dis_vd").box_side == 1024
    assert dis.predict("dis_vd").resize == "stretch"
    assert coco.index("coco").box_side is None and coco.predict("coco").resize == "longest_side"
    assert vars(coco.score("coco"))["score_rule"] == "detector_x_iou"
    chosen = vars(lvis.score("lvis"))
    assert (chosen["score_rule"], chosen["max_dets"]) == ("detector", 300)
    sample = yaml.safe_load((REPOSITORY / "configs" / "sample.yaml").read_text())["benchmarks"]
    assert {entry["kind"] for entry in sample.values()} <= set(protocols.PAPER)


@pytest.mark.parametrize("benchmark", ["dis_vd", "coco", "hq_ytvis", "davis"])
def test_the_strict_preset_keeps_the_aspect_and_adds_the_thin_band(benchmark: str) -> None:
    params = with_protocol("strict", benchmark)
    assert params.index(benchmark).box_side is None
    assert params.predict(benchmark).resize == "longest_side"
    score = vars(params.score(benchmark))
    if "strict_dilation_ratio" in score:
        assert (score["dilation_ratio"], score["strict_dilation_ratio"]) == (0.02, 0.01)


def test_a_protocol_that_cannot_be_is_told_with_its_key() -> None:
    with pytest.raises(UserError, match="stands for resize: 'stretch'") as caught:
        with_protocol("paper", "dis_vd", predict={"resize": "longest_side"}).predict("dis_vd")
    assert caught.value.key == "benchmarks.dis_vd.predict.resize"
    with pytest.raises(UserError, match="papr"):
        with_protocol("papr", "dis_vd").predict("dis_vd")
    own = {"kind": "folder", "index": {"prompt_sets": ["gt_box"], "images": "a", "masks": "b"}}
    with pytest.raises(UserError, match="no official code for data of kind folder"):
        with_protocol("paper", "dis_vd", **own).predict("dis_vd")
    assert with_protocol("strict", "dis_vd", **own).predict("dis_vd").resize == "longest_side"


def test_dvc_watches_what_a_protocol_stands_for(tmp_path: Path) -> None:
    """Each benchmark's stages depend on a file of its own: another protocol runs nothing else again."""
    for name in ("paper", "strict"):
        root = tmp_path / name
        root.mkdir()
        (root / "params.yaml").write_text(yaml.safe_dump(dict(with_protocol(name, "dis_vd").raw)))
        write_protocols(root, root / "out")
    differing = [
        path.name
        for path in sorted((tmp_path / "paper" / "out").iterdir())
        if path.read_bytes() != (tmp_path / "strict" / "out" / path.name).read_bytes()
    ]
    assert differing == ["dis_vd.json"]
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    assert "data/protocols/${key}.json" in stages["index"]["do"]["deps"]
    for verb in ("predict", "score"):
        assert "data/protocols/${item.benchmark}.json" in stages[verb]["deps"]
    assert "seed" not in str(stages["index"])
