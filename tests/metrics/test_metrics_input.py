"""Bad input: each gives one clear error that names file and cure; what the protocols tolerate is counted."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
from hqsam_metrics import UserError, evaluate
from hqsam_metrics.jsonlist import iter_list
from hqsam_metrics.masks import encode_rle
from metrics_synthetic import detections
from metrics_testing import GOLDEN


@pytest.fixture
def coco_set():
    truth, rows = detections(np.random.default_rng(5))
    return copy.deepcopy(truth), copy.deepcopy(rows)


def score(tmp_path, truth, rows, function=evaluate.score_coco_files, **arguments):
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(rows))
    return function(pred=tmp_path / "dt.json", gt=tmp_path / "gt.json", **arguments)


def change(rows, at, **values):
    rows[at] = {**rows[at], **values}


BAD_RESULTS = [
    ({"image_id": 999}, "image_id 999 is not in"),
    ({"image_id": "1"}, "image_id"),
    ({"image_id": True}, "image_id"),
    ({"image_id": None}, "image_id"),
    ({"category_id": 1.5}, "category_id"),
    ({"score": math.nan}, "score"),
    ({"score": math.inf}, "score"),
    ({"score": "0.9"}, "score"),
    ({"segmentation": {"size": [1, 1], "counts": "1"}}, "its image is"),
    ({"segmentation": "x"}, "segmentation"),
    ({"segmentation": None}, "segmentation"),
]


@pytest.mark.parametrize(("values", "words"), BAD_RESULTS)
def test_results(tmp_path, coco_set, values, words):
    truth, rows = coco_set
    change(rows, 2, **values)
    with pytest.raises(UserError, match=words) as caught:
        score(tmp_path, truth, rows)
    assert "result 2" in str(caught.value) and "dt.json" in str(caught.value)


@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "segmentation"])
def test_missing_keys_of_results(tmp_path, coco_set, key):
    truth, rows = coco_set
    del rows[1][key]
    with pytest.raises(UserError, match=key):
        score(tmp_path, truth, rows)


def test_malformed_masks_are_named(tmp_path, coco_set):
    truth, rows = coco_set
    size = rows[3]["segmentation"]["size"]
    for counts in ("zzz\x7f", "", "5555", "\u00e4"):
        change(rows, 3, segmentation={"size": size, "counts": counts})
        with pytest.raises(UserError, match=r"dt.json: result 3"):
            score(tmp_path, truth, rows)
        with pytest.raises(UserError, match=r"dt.json: result 3"):
            score(tmp_path, truth, rows, workers=2)
    truth["annotations"][1]["segmentation"] = {"size": truth["annotations"][1]["segmentation"]["size"], "counts": "0"}
    with pytest.raises(UserError, match=r"gt.json: annotation id 2"):
        score(tmp_path, truth, [])


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("images", 1, "id"), "same", "more than once"),
        (("annotations", 1, "id"), "same", "more than once"),
        (("categories", 1, "id"), "same", "more than once"),
        (("images", 0, "height"), 0, "positive"),
        (("images", 0, "width"), None, "width"),
        (("annotations", 0, "area"), "big", "area"),
        (("annotations", 0, "iscrowd"), 2, "iscrowd"),
        (("annotations", 0, "segmentation"), [[1, 2]], "three points"),
        (("images",), [], "nothing to score"),
        (("images",), None, "COCO format"),
    ],
)
def test_annotations(tmp_path, coco_set, path, value, words):
    truth, rows = coco_set
    *way, last = path
    target = truth
    for step in way:
        target = target[step]
    target[last] = truth[path[0]][0]["id"] if value == "same" else value
    with pytest.raises(UserError, match=words) as caught:
        score(tmp_path, truth, rows)
    assert "gt.json" in str(caught.value)


def test_what_cocoeval_tolerates_is_counted(tmp_path, coco_set):
    truth, rows = coco_set
    want = score(tmp_path, truth, rows)
    assert want.warnings == []
    first = truth["annotations"][0]
    truth["annotations"] += [first | {"id": 900, "image_id": 77}, first | {"id": 901, "category_id": 77}]
    got = score(tmp_path, truth, [*rows, rows[0] | {"category_id": 78}])
    assert got.metrics == want.metrics
    assert [w.split()[0] for w in got.warnings] == ["1", "1", "1"]


def test_files(tmp_path):
    gt = GOLDEN / "coco" / "gt.json"
    for text, words in [("[", "valid JSON"), ("{}", "JSON list"), ("[1]", "image_id"), ('["a"]', "no object")]:
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(UserError, match=words):
            evaluate.score_coco_files(pred=tmp_path / "r.json", gt=gt)
    with pytest.raises(UserError, match="no such file"):
        evaluate.score_coco_files(pred=tmp_path / "none.json", gt=gt)
    with pytest.raises(UserError, match="cannot be read"):
        evaluate.score_coco_files(pred=gt, gt=tmp_path / "none.json")
    with pytest.raises(UserError, match="JSON object"):
        evaluate.score_coco_files(pred=gt, gt=tmp_path / "r.json")
    with pytest.raises(UserError, match="between 0 and 1"):
        evaluate.score_coco_files(pred=gt, gt=gt, iou_type="boundary", dilation_ratio=0)


def test_empty_results_give_zero(tmp_path, coco_set):
    truth, _ = coco_set
    result = score(tmp_path, truth, [])
    assert result.metrics["AP"] == 0 and result.metrics["AR100"] == 0


def test_no_ground_truth_is_undefined(tmp_path, coco_set):
    truth, rows = coco_set
    truth["annotations"] = []
    result = score(tmp_path, truth, rows)
    assert all(value is None for value in result.metrics.values())
    assert result.to_dict()["metrics"]["AP"] is None


def test_coco_file_given_to_lvis(tmp_path, coco_set):
    with pytest.raises(UserError, match="LVIS file"):
        score(tmp_path, *coco_set, function=evaluate.score_lvis_files)


def test_tubes(tmp_path):
    folder = GOLDEN / "video_ytvis"
    truth, rows = (json.loads((folder / name).read_text()) for name in ("gt.json", "results.json"))
    cases = [
        ({"video_id": 99}, "video_id 99"),
        ({"score": math.nan}, "score"),
        ({"segmentations": None}, "one entry a frame"),
        ({"segmentations": [{"size": [1, 1], "counts": "1"}]}, "frame 0"),
    ]
    for values, words in cases:
        changed = [rows[0] | values, *rows[1:]]
        with pytest.raises(UserError, match=words):
            score(tmp_path, truth, changed, function=evaluate.score_ytvis_files)
    size = rows[0]["segmentations"][12]["size"]
    broken = rows[0] | {"segmentations": [{"size": size, "counts": "zz\x01"}] * len(rows[0]["segmentations"])}
    with pytest.raises(UserError, match="result 0"):
        score(tmp_path, truth, [broken, *rows[1:]], function=evaluate.score_ytvis_files)
    without = [{k: v for k, v in row.items() if k not in ("height", "width")} for row in rows]
    full = score(tmp_path, truth, rows, function=evaluate.score_ytvis_files, iou_type="boundary")
    same = score(tmp_path, truth, without, function=evaluate.score_ytvis_files, iou_type="boundary", workers=2)
    assert same.metrics == full.metrics
    short = [row | {"segmentations": row["segmentations"][:3]} for row in rows]
    result = score(tmp_path, truth, short, function=evaluate.score_ytvis_files)
    assert result.warnings and "shorter list" in result.warnings[0]


@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
def test_large_lists_are_read_in_blocks(tmp_path, block):
    rows = [{"a": i, "b": {"c": "}],[{" * (i % 3)}, "d": [{"e": [1, {}]}]} for i in range(200)]
    for text in (json.dumps(rows), json.dumps(rows, indent=1), " " + json.dumps(rows, separators=(",", ":")) + "\n"):
        (tmp_path / "x.json").write_text(text)
        assert [row for part in iter_list(tmp_path / "x.json", block=block) for row in part] == rows
    for broken in (json.dumps(rows)[:-1], json.dumps(rows) + "]", json.dumps(rows).replace('"a": 77', '"a" 77')):
        (tmp_path / "x.json").write_text(broken)
        with pytest.raises(UserError, match="not valid JSON"):
            list(iter_list(tmp_path / "x.json", block=block))


def test_arrays_that_are_no_masks():
    from hqsam_metrics import boundary_band, boundary_iou, mask_iou

    good = np.zeros((4, 5), bool)
    for bad in (np.zeros((4, 5, 1), bool), np.zeros((4, 5)), np.full((4, 5), 255, np.uint8)):
        with pytest.raises(ValueError, match="mask"):
            mask_iou(pred=good, target=bad)
    with pytest.raises(ValueError, match="differ in size"):
        boundary_iou(pred=good, target=good.T)
    for ratio in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="dilation_ratio"):
            boundary_band(good, dilation_ratio=ratio)
    with pytest.raises(ValueError, match="at least 1"):
        boundary_band(good, dilation=0)
    assert encode_rle(good.astype(np.uint8)) == encode_rle(good)
