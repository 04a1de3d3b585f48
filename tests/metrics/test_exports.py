"""Exported predictions score as in the pipeline, read by other programs and by our own commands."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hqsam_base.errors import UserError
from hqsam_base.sginw import CATEGORIES_A_SET, IMAGES_A_SET, SETS
from hqsam_metrics import exports
from hqsam_metrics.base import load_score, score_options
from hqsam_metrics.benchmark_data import Benchmark, load_predictions
from hqsam_metrics.exports.davis import davis_palette
from hqsam_metrics.reference import removed_numpy_names
from hqsam_metrics.scores.coco import score_coco_files
from hqsam_metrics.scores.davis import score_davis_folders
from hqsam_metrics.scores.masks import score_mask_folders
from hqsam_metrics.scores.sginw import score_sginw_folders
from hqsam_metrics.scores.ytvis import score_ytvis_files
from tests import GOLDEN
from tests.metrics.benchmark_set import (
    Set,
    coco_like,
    davis_like,
    masks_like,
    numbered_through,
    ytvis_like,
)
from tests.metrics.synthetic import detections


def written(one: Set, form: str, name: str, **score):
    """The pipeline's metrics of `hq_sum`, and the exported file or folder."""
    found = one.score(**score)
    data = Benchmark(one.root / "benchmark")
    export = exports.load(form)
    out = one.root / name
    export.check(one.kind, out)
    if export.folder:
        out.mkdir()
    options = score_options({"version": load_score(score["metric"]).version} | score)
    warnings = export.write(
        load_predictions(data, one.root / "predictions", "boxes", "hq_sum"), options, out
    )
    (row,) = [r for r in found["results"] if r["system"] == "hq_sum"]
    return row["metrics"], out, warnings


def same(got, want, names):
    assert {n: got[n] for n in names} == pytest.approx({n: want[n] for n in names}, abs=1e-9)


def test_coco_results_for_pycocotools_and_for_us(tmp_path, capsys):
    one = coco_like(tmp_path, "coco", "results_perturbed.json")
    want, out, _ = written(one, "coco", "r.json", metric="coco", score_rule="detector_x_iou")
    same(
        score_coco_files(pred=out, gt=one.ground_truth).metrics, want, ["AP", "AP50", "APs", "APl"]
    )
    truth = COCO(str(one.ground_truth))
    evaluation = COCOeval(truth, truth.loadRes(str(out)), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    same(dict(zip(names, evaluation.stats[:6].tolist(), strict=True)), want, names)
    assert "bbox" not in json.loads(out.read_text())[0]


def test_results_without_classes_have_the_class_of_the_ground_truth(tmp_path):
    truth, _ = detections(np.random.default_rng(3), categories=1)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    one = Set("coco", tmp_path, ground_truth=tmp_path / "gt.json")
    for image in truth["images"]:
        size = {"height": image["height"], "width": image["width"]}
        one.images.append({"key": f"k{image['id']}", "image_id": image["id"]} | size)
    for n, row in enumerate(truth["annotations"]):
        code = row["segmentation"]
        box = {"score": 0.5, "category_id": 62}
        one.add(f"{n:03d}", f"k{row['image_id']}", code["counts"], tuple(code["size"]), **box)
    want, out, _ = written(
        one, "coco", "r.json", metric="coco", score_rule="detector", class_agnostic=True
    )
    assert want["AP"] > 0
    got = score_coco_files(pred=out, gt=one.ground_truth, class_agnostic=True).metrics
    same(got, want, ["AP", "AR100"])


def test_lvis_results_for_lvis_api(tmp_path):
    one = coco_like(tmp_path, "lvis", "results.json")
    want, out, _ = written(
        one, "lvis", "r.json", metric="lvis", score_rule="detector", max_dets=300
    )
    with removed_numpy_names():
        from lvis import LVIS, LVISEval, LVISResults

        truth = LVIS(str(one.ground_truth))
        evaluation = LVISEval(truth, LVISResults(truth, str(out)), "segm")
        evaluation.run()
    same(evaluation.results, want, ["AP", "AP50", "APs", "APr", "APf"])


@pytest.mark.parametrize("suffix", [".json", ".zip"])
def test_youtube_vis_results_and_the_archive_for_the_server(tmp_path, suffix):
    one = ytvis_like(tmp_path)
    want, out, _ = written(one, "ytvis", f"r{suffix}", metric="ytvis", score_rule="detector")
    if suffix == ".zip":
        with zipfile.ZipFile(out) as archive:
            assert archive.namelist() == ["results.json"]
            out = tmp_path / archive.extract("results.json", tmp_path)
    got = score_ytvis_files(pred=out, gt=one.ground_truth).metrics
    same(got, want, ["AP", "AP50", "AR10"])
    boundary = score_ytvis_files(pred=out, gt=one.ground_truth, iou_type="boundary").metrics
    assert boundary["AP"] == pytest.approx(want["AP_B"], abs=1e-9)


def test_davis_folders_with_the_palette_of_the_annotations(tmp_path):
    one = davis_like(tmp_path)
    want, out, _ = written(one, "davis", "out", metric="davis")
    got = score_davis_folders(pred=out, gt=GOLDEN / "davis" / "DAVIS").metrics
    same(got, want, ["J&F", "J", "F", "J_decay"])
    with Image.open(next(out.glob("*/00000.png"))) as picture:
        assert (
            picture.mode == "P" and bytes(picture.getpalette()[:768])[:15] == davis_palette()[:15]
        )
    # The first colours of the VOC map, and that of void.
    assert [tuple(davis_palette()[3 * i : 3 * i + 3]) for i in (0, 1, 2, 3, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (224, 224, 192),
    ]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../out", "leaves the folder"),
        ("/tmp/out", "absolute"),
        ("a/b", "no plain file name"),
        ("é" * 150, "too long"),
        ("{}", "falls together"),
    ],
)
def test_a_name_that_cannot_be_a_folder_is_one_message(tmp_path, name, why):
    one = davis_like(tmp_path)
    videos = sorted({image["video"] for image in one.images})
    name = name.format(videos[0].upper())
    for image in one.images:
        image["video"] = {videos[-1]: name}.get(image["video"], image["video"])
    with pytest.raises(UserError, match=why.replace("no plain", "not a plain")) as told:
        written(one, "davis", "out", metric="davis")
    assert told.value.key in (name, videos[0]) and not list((tmp_path / "out").iterdir())


def test_masks_as_png_beside_the_ground_truth(tmp_path, golden_masks, golden_pairs):
    one = masks_like(tmp_path, golden_masks, golden_pairs)
    for prompt in one.prompts:
        prompt["instance_id"] = f"i{prompt['prompt_id'][1:]}"
    want, out, warnings = written(one, "png", "out", metric="masks")
    got = score_mask_folders(pred=out / "pred", gt=out / "gt").metrics
    same(got, want, ["mIoU", "mBIoU"])
    assert not warnings


def test_sginw_files_have_the_ids_of_each_set(tmp_path):
    rng = np.random.default_rng(5)
    sets = {}
    while len(sets) < len(SETS):
        truth, rows = detections(rng, images=1, ties=False)
        if any(not row["iscrowd"] for row in truth["annotations"]):
            sets[SETS[len(sets)]] = truth, rows
            place = tmp_path / "gt" / SETS[len(sets) - 1] / "valid"
            place.mkdir(parents=True)
            (place / "_annotations_min1cat.coco.json").write_text(json.dumps(truth))
    truth, rows = numbered_through(sets, images=IMAGES_A_SET, categories=CATEGORIES_A_SET)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    one = Set("coco", tmp_path, ground_truth=tmp_path / "truth.json")
    for image in truth["images"]:
        size = {"height": image["height"], "width": image["width"]}
        one.images.append({"key": f"k{image['id']}", "image_id": image["id"]} | size)
    for n, row in enumerate(rows):
        code, rest = row["segmentation"], {"score": row["score"], "category_id": row["category_id"]}
        one.add(f"{n:06d}", f"k{row['image_id']}", code["counts"], tuple(code["size"]), **rest)
    want, out, _ = written(one, "sginw", "out", metric="sginw", score_rule="detector")
    got = score_sginw_folders(pred=out, gt=tmp_path / "gt")
    assert got.metrics["AP"] == pytest.approx(want["AP"], abs=1e-9)


def test_what_does_not_fit_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match=r"not masks(.|\n)*use one of png"):
        exports.load("coco").check("masks", tmp_path / "r.json")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="something at its place"):
        exports.load("png").check("masks", tmp_path)
