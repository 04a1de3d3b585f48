"""`hqsam score ... --against`: two files of predictions for one ground truth."""

from __future__ import annotations

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest

from hqsam_base.rle import encode_rle
from hqsam_base.sginw import SETS
from hqsam_metrics import mask_iou
from hqsam_metrics.ap.resample import differences, joined
from hqsam_metrics.scores import coco, davis, lvis, ytvis
from hqsam_metrics.stats import paired
from tests import GOLDEN
from tests.metrics.synthetic import detections, random_masks
from tests.metrics.test_cli import result, run, write_masks


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(3)
    drawn = [mask for mask in random_masks(rng, 40, (60, 80)) if mask.any()][:12]
    real = {f"{k:02d}": mask for k, mask in enumerate(drawn)}
    shifted = {name: np.roll(mask, 2 + n, axis=1) for n, (name, mask) in enumerate(real.items())}
    for name, masks in (("gt", real), ("good", real), ("bad", shifted)):
        write_masks(tmp_path / name, masks)
    (tmp_path / "images").mkdir()
    for name in real:
        cv2.imwrite(str(tmp_path / "images" / f"{name}.jpg"), np.full((60, 80, 3), 200, np.uint8))
    return ["masks", "--pred", tmp_path / "good", "--gt", tmp_path / "gt"]


def test_masks(tmp_path, folders):
    more = ["--against", tmp_path / "bad", "--images", tmp_path / "images"]
    content = result(tmp_path, *folders, *more, "--overlays", tmp_path / "drawn")
    own, other = (
        {row["key"]: row["biou"] for row in side["per_item"]}
        for side in (content, content["against"])
    )
    assert content["protocol"] == content["against"]["protocol"]
    found = content["differences"]["mBIoU"]
    moved = np.array([100 * (own[key] - other[key]) for key in own], float)
    want = paired(moved, list(own))
    assert (found["low"], found["high"]) == (want.low, want.high) and found["verdict"] == "better"
    assert found["own"] - found["other"] == pytest.approx(found["mean"], abs=1e-9)
    gains = [abs(own[one["unit"]] - other[one["unit"]]) for one in content["changed"]]
    assert gains and all(a >= b for a, b in pairwise(gains))
    pictures = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert pictures == [f"{n:02d}-{one['unit']}.png" for n, one in enumerate(content["changed"], 1)]
    # The first panel is the photograph.
    panel = cv2.imread(str(tmp_path / "drawn" / pictures[0]))[80:120, 80:120]
    assert np.abs(panel.astype(int) - 200).max() <= 3


def test_refuses(tmp_path, folders):
    def message(*more):
        done = run(*folders, *more)
        assert done.exit_code == 1 and done.output.count("error:") == 1, done.output
        assert "Traceback" not in done.output
        return done.output

    against = ("--against", tmp_path / "bad")
    assert "no such folder" in message("--against", tmp_path / "none")
    assert "need --against" in message("--overlays", tmp_path / "drawn")
    assert "--overlays" in message(*against, "--images", tmp_path / "images")
    assert "holds something already" in message(*against, "--overlays", tmp_path / "images")
    assert not (tmp_path / "drawn").exists()
    cv2.imwrite(str(tmp_path / "images" / "11.jpg"), np.zeros((8, 8, 3), np.uint8))
    text = message(*against, "--images", tmp_path / "images", "--overlays", tmp_path / "drawn")
    assert "80 x 60" in text and not (tmp_path / "drawn").exists()


@pytest.mark.parametrize(
    ("kind", "folder", "name"),
    [("coco", "coco", "results_perturbed.json"), ("lvis", "lvis", "results.json")],
)
def test_detections(tmp_path, kind, folder, name):
    at = GOLDEN / folder
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads((at / name).read_text())[::2]))
    words = (kind, "--gt", at / "gt.json", "--iou-type", "boundary", "--pred")
    content = result(tmp_path, *words, at / name, "--against", other)
    assert content["metrics"] == result(tmp_path, *words, at / name)["metrics"]
    assert content["against"]["metrics"] == result(tmp_path, *words, other)["metrics"]
    ap = content["differences"]["AP"]
    assert ap["mean"] == pytest.approx(ap["own"] - ap["other"], abs=1e-9) and ap["mean"] > 0
    assert ap["low"] < ap["mean"] < ap["high"] and ap["clusters"] == content["n_scored"]
    assert {"instance IoU", "instance boundary IoU"} <= content["differences"].keys()


def test_the_masks_are_those_that_were_scored(tmp_path):
    """Of a seeded part of the instances: what is drawn has the IoU that the comparison names."""
    for score, folder, name in (
        (coco.score_coco_files, "coco", "results_perturbed.json"),
        (lvis.score_lvis_files, "lvis", "results.json"),
        (ytvis.score_ytvis_files, "video_ytvis", "results.json"),
    ):
        at = GOLDEN / folder
        kept = score(pred=at / name, gt=at / "gt.json", keep=True).kept
        for row in range(0, len(kept.units.unit), 7):
            views = kept.views(row)
            found, truth = (np.stack([getattr(v, n) for v in views]) for n in ("found", "truth"))
            assert (found & truth).sum() / (found | truth).sum() == pytest.approx(
                kept.units.values["iou"][row], abs=1e-12
            )
    at = GOLDEN / "davis"
    kept = davis.score_davis_folders(pred=at / "results", gt=at / "DAVIS", keep=True).kept
    ious = [mask_iou(pred=v.found, target=v.truth) for v in kept.views(0)]
    assert np.nan_to_num(ious, nan=1.0).mean() == pytest.approx(kept.units.values["j"][0])
    assert kept.views(0)[0].image == f"{kept.units.cluster[0]}/00001.png"


def test_sets_are_strata(tmp_path):
    """SGinW's mean over sets, from the matches of each set."""
    rng = np.random.default_rng(5)
    sides = [[], []]
    for name in ("a", "b", "c"):
        truth, rows = detections(rng, images=4)
        (tmp_path / f"{name}.json").write_text(json.dumps(truth))
        for side, kept_rows in zip(sides, (rows, rows[::2]), strict=True):
            (tmp_path / "dt.json").write_text(json.dumps(kept_rows))
            side.append(
                coco.score_coco_files(
                    pred=tmp_path / "dt.json", gt=tmp_path / f"{name}.json", keep=True
                )
            )
    matches = [joined([one.kept.matches for one in side]) for side in sides]
    means = [100 * np.mean([one.metrics["AP"] for one in side]) for side in sides]
    found = differences(matches[0], matches[1], ["AP"])["AP"]
    assert found.mean == pytest.approx(means[1] - means[0], abs=1e-9) and found.clusters == 12


def test_sginw_and_davis(tmp_path):
    rng = np.random.default_rng(1)
    for name in SETS:
        mask = random_masks(rng, 1, (20, 30))[0]
        mask[4, 5] = True
        row = {"image_id": 1, "category_id": 1, "segmentation": encode_rle(mask)}
        truth = {"id": 1, "iscrowd": 0, "area": int(mask.sum()), "bbox": [0, 0, 30, 20], **row}
        gt = {
            "images": [{"id": 1, "height": 20, "width": 30, "file_name": "x.jpg"}],
            "categories": [{"id": 1}],
            "annotations": [truth],
        }
        (tmp_path / name / "valid").mkdir(parents=True)
        (tmp_path / name / "valid" / "_annotations_min1cat.coco.json").write_text(json.dumps(gt))
        for side, shift in (("a", 0), ("b", 3)):
            (tmp_path / side).mkdir(exist_ok=True)
            moved = {**row, "score": 0.5, "segmentation": encode_rle(np.roll(mask, shift, axis=1))}
            (tmp_path / side / f"seginw-{name}_val.json").write_text(json.dumps([moved]))
    words = ("sginw", "--pred", tmp_path / "b", "--gt", tmp_path, "--against", tmp_path / "a")
    content = result(tmp_path, *words, "--overlays", tmp_path / "drawn")
    ap = content["differences"]["AP"]
    assert ap["mean"] == pytest.approx(ap["own"] - ap["other"], abs=1e-9) and ap["mean"] < 0
    assert content["changed"][0]["unit"].partition("/")[0] in SETS
    assert len(list((tmp_path / "drawn").iterdir())) == len(content["changed"]) == 12
    at = GOLDEN / "davis"
    words = ("davis", "--pred", at / "results", "--gt", at / "DAVIS", "--against", at / "results")
    same = result(tmp_path, *words)
    assert same["differences"]["J&F"]["verdict"] == "cannot move" and not same["changed"]
