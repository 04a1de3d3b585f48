"""The kinds of error: a drawn case of each, TIDE's own counts, and the AP that the split starts from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hqsam_base.rle import encode
from hqsam_metrics.ap import detection, errors
from hqsam_metrics.ap.instances import parse_ground_truth, read_ground_truth
from hqsam_metrics.ap.results import parse_results
from hqsam_metrics.ap.results import read_results as results_of
from hqsam_metrics.calibration import reliability
from hqsam_metrics.scores.coco import make_plan
from tests import GOLDEN

SIDE = 100
PLAN = replace(
    make_plan((None, 0.02), class_agnostic=False, max_dets=None, per_instance=True), errors=True
)


def bar(left: int, right: int, top: int = 0) -> dict[str, Any]:
    """A mask 10 pixels high."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + 10, left:right] = True
    return {"segmentation": {"size": [SIDE, SIDE], "counts": encode(mask)}}


# One object of class 1 in each of five rows, one of class 2 in a sixth, a crowd in a seventh.
OBJECTS = [(1, 20 * k, False) for k in range(4)] + [(2, 80, False), (1, 90, True)]
FOUND = [  # class, left, right, top, score; kind
    (1, 0, 50, 0, 0.9, "right"),
    (1, 0, 45, 0, 0.8, "duplicate"),
    (1, 30, 80, 20, 0.7, "localisation"),  # IoU 1/4
    (1, 20, 70, 20, 0.6, "localisation"),  # IoU 3/7, the same object
    (2, 0, 50, 40, 0.5, "classification"),
    (2, 30, 80, 60, 0.4, "both"),
    (1, 90, 99, 80, 0.3, "background"),
    (1, 0, 50, 90, 0.2, "left out"),  # within the crowd
]


def drawn() -> detection.Scored:
    objects = [
        {"id": i + 1, "image_id": 1, "category_id": c, "iscrowd": int(crowd), **bar(0, 50, top)}
        for i, (c, top, crowd) in enumerate(OBJECTS)
    ]
    truth = {
        "images": [{"id": 1, "height": SIDE, "width": SIDE}],
        "categories": [{"id": 1, "name": "bar"}, {"id": 2, "name": "rod"}],
        "annotations": objects,
    }
    found = [
        {"image_id": 1, "category_id": c, "score": score, **bar(left, right, top)}
        for c, left, right, top, score, _ in FOUND
    ]
    gt = parse_ground_truth(truth, "gt")
    assert gt.category_names == ("bar", "rod")
    return detection.score_detections(gt, parse_results([found], gt, "found"), PLAN)


def test_each_kind_of_error_is_called_so() -> None:
    found = drawn().errors[0]
    names = np.array(["right", *errors.KINDS[:5], "left out"])[found.kind]
    assert dict(zip(found.row.tolist(), names.tolist(), strict=True)) == {
        row: kind for row, (*_, kind) in enumerate(FOUND)
    }
    assert found.iou[np.argsort(found.row)][:4] == pytest.approx([1, 0.9, 1 / 4, 3 / 7])


def test_a_kind_costs_what_mending_it_gains() -> None:
    split = errors.split(drawn().errors[0], 2)
    # Class 1: four objects, one found; recalls 0 to 0.25 of the 101 are 26. Class 2: none found.
    assert split["ap50"] == pytest.approx(26 / 101 / 2)
    # The rod and the object that only "both" is about are missed.
    assert split["count"] == {
        **dict.fromkeys(("classification", "both", "duplicate", "background"), 1),
        "localisation": 2,
        "missed": 2,
    }
    assert (split["objects"], split["detections"], split["right"]) == (5, 7, 1)
    # One of the two poor masks becomes right, behind a duplicate; the other goes.
    assert split["cost"]["localisation"] == pytest.approx(25 * 2 / 3 / 101 / 2)
    # The wrong class becomes right, behind one duplicate and two poor masks: precision 2 of 5.
    assert split["cost"]["classification"] == pytest.approx(25 * 2 / 5 / 101 / 2)
    # Without the rod class 2 has no objects; of class 1, three are left.
    assert split["cost"]["missed"] == pytest.approx(34 / 101 - 26 / 101 / 2)
    assert [split["cost"][kind] for kind in ("both", "duplicate", "background")] == [0, 0, 0]


# What tidecv 1.0.1 counts on this file, of which no detection falls on a crowd (its AP50 is
# another: there, a class without objects counts as 0).
TIDE = dict(zip(errors.KINDS, (76, 82, 7, 0, 4, 109), strict=True))


@pytest.mark.parametrize("masks", [10, 1024])
def test_counts_are_those_of_tide_and_ap50_is_the_official_one(
    monkeypatch: pytest.MonkeyPatch, masks: int
) -> None:
    monkeypatch.setattr(detection, "_CHUNK_MASKS", masks)
    gt = read_ground_truth(GOLDEN / "coco" / "gt.json")
    scored = detection.score_detections(
        gt, results_of(GOLDEN / "coco" / "results_fake.json", gt), PLAN
    )
    n = len(gt.category_ids)
    mask, boundary = (errors.split(found, n) for found in scored.errors)
    assert mask["count"] == TIDE
    for split, table in zip((mask, boundary), scored.tables, strict=True):
        assert split["ap50"] == pytest.approx(table.ap(iou=0.5), abs=1e-12)
        count = split["count"]
        assert split["right"] + sum(count.values()) - count["missed"] == split["detections"]
    # The numbers of AP are the same with and without.
    plain = detection.score_detections(
        gt, results_of(GOLDEN / "coco" / "results_fake.json", gt), replace(PLAN, errors=False)
    )
    for a, b in zip(scored.tables, plain.tables, strict=True):
        assert np.array_equal(a.precision, b.precision, equal_nan=True)
    assert scored.best is not None and plain.best is not None
    assert np.array_equal(scored.best.biou, plain.best.biou)
    assert json.loads(json.dumps(mask)) == mask


def test_calibration_is_the_mean_distance_of_the_bins() -> None:
    predicted = np.array([0.95, 0.91, 0.2, 1.04, np.nan])
    found = reliability(predicted, np.array([0.9, 0.7, 0.3, 1.0, 0.5]))
    assert found["n"] == 4 and [b["n"] for b in found["bins"]] == [1, 3]
    high = abs((0.95 + 0.91 + 1.04) / 3 - (0.9 + 0.7 + 1.0) / 3)
    assert found["error"] == pytest.approx((0.1 + 3 * high) / 4)
    assert reliability(np.zeros(0), np.zeros(0)) == {"n": 0, "error": None, "bins": []}
