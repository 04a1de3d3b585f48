"""COCO, LVIS and YouTube-VIS tables against the official evaluators."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hqsam_base.runs import decode_runs
from hqsam_metrics.ap import accumulate
from hqsam_metrics.ap.detection import score_detections
from hqsam_metrics.ap.instances import parse_ground_truth, read_ground_truth
from hqsam_metrics.ap.names import lvis_metrics
from hqsam_metrics.ap.options import TUBE_DILATION_RATIO
from hqsam_metrics.ap.results import parse_results, read_results
from hqsam_metrics.ap.tubes import score_tubes, side_of, tube_ious
from hqsam_metrics.ap.tubes_io import read_tube_results, read_ytvis
from hqsam_metrics.masks.iou import dilation_pixels
from hqsam_metrics.masks.packed import Shapes
from hqsam_metrics.scores import coco, lvis
from hqsam_metrics.scores.coco import score_coco_files
from hqsam_metrics.scores.lvis import score_lvis_files
from hqsam_metrics.scores.ytvis import score_ytvis_files
from tests import GOLDEN
from tests.metrics.golden import read_golden

KINDS = {"segm": None, "boundary_0.02": 0.02, "boundary_0.01": 0.01}


def same(metrics, want):
    for name, value in want.items():
        got = metrics[name]
        # -1 is the official "no ground truth in this cell".
        assert (-1 if got is None else got) == pytest.approx(value, abs=1e-9), name


def score(kind, **arguments):
    ratio = KINDS[kind]
    named = (
        {"iou_type": "segm"} if ratio is None else {"iou_type": "boundary", "dilation_ratio": ratio}
    )
    return arguments.pop("program")(**named, **arguments).metrics


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", ["class_aware", "class_agnostic"])
@pytest.mark.parametrize("results", ["results_fake.json", "results_perturbed.json"])
def test_coco(kind, classes, results):
    want = read_golden("coco/expected.json")["files"][results]["expected"][f"{kind}/{classes}"]
    metrics = score(
        kind,
        program=score_coco_files,
        pred=GOLDEN / "coco" / results,
        gt=GOLDEN / "coco" / "gt.json",
        class_agnostic=classes == "class_agnostic",
    )
    same(metrics, want["stats"])


def same_categories(category_ids, tables, want):
    values = dict(zip(category_ids.tolist(), tables.per_category(), strict=True))
    assert want
    for category, value in want.items():
        # -1 is the official "no ground truth of this category".
        got = values[int(category)]
        assert (-1 if np.isnan(got) else got) == pytest.approx(
            -1 if value is None else value, abs=1e-9
        ), category


@pytest.mark.parametrize("results", ["results_fake.json", "results_perturbed.json"])
def test_coco_per_category(results):
    gt = read_ground_truth(GOLDEN / "coco" / "gt.json")
    dt = read_results(GOLDEN / "coco" / results, gt)
    plan = coco.make_plan(
        tuple(KINDS.values()), class_agnostic=False, max_dets=None, per_instance=False
    )
    expected = read_golden("coco/expected.json")["files"][results]["expected"]
    for kind, tables in zip(KINDS, score_detections(gt, dt, plan).tables, strict=True):
        same_categories(gt.category_ids, tables, expected[f"{kind}/class_aware"]["per_category_AP"])


def test_lvis_per_category():
    gt = read_ground_truth(GOLDEN / "lvis" / "gt.json", lvis=True)
    dt = read_results(GOLDEN / "lvis" / "results.json", gt)
    plan = lvis.make_plan(tuple(KINDS.values()), max_dets=None, per_instance=False)
    expected = read_golden("lvis/expected.json")["expected"]
    for kind, tables in zip(KINDS, score_detections(gt, dt, plan).tables, strict=True):
        name = "lvis_api/segm" if kind == "segm" else f"boundary_iou_api/{kind}"
        same_categories(gt.category_ids, tables, expected[name]["per_category_AP"])


def with_tight_boxes(path, out):
    rows = json.loads(path.read_text())
    gt = parse_ground_truth(
        json.loads((path.parent / "gt.json").read_text()), "gt", lvis="lvis" in str(path.parent)
    )
    boxes = Shapes.of(decode_runs(parse_results([rows], gt, "r").masks)).boxes.tolist()
    for row, (x0, y0, x1, y1) in zip(rows, boxes, strict=True):
        row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    out.write_text(json.dumps(rows))
    return out


@pytest.mark.parametrize("kind", ["segm", "boundary_0.02"])
@pytest.mark.parametrize("results", ["results_fake.json", "results_perturbed.json"])
def test_a_bbox_key_changes_nothing_unless_asked(tmp_path, kind, results):
    pred = with_tight_boxes(GOLDEN / "coco" / results, tmp_path / "r.json")
    want = read_golden("coco/expected.json")["files"][results]["expected"]
    arguments = {"program": score_coco_files, "pred": pred, "gt": GOLDEN / "coco" / "gt.json"}
    same(score(kind, **arguments), want[f"{kind}/class_aware"]["stats"])
    same(
        score(kind, **arguments, area_rule="bbox"),
        want[f"with_tight_bbox_key/{kind}/class_aware"]["stats"],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_lvis(kind):
    want = read_golden("lvis/expected.json")["expected"]
    want = want["lvis_api/segm" if kind == "segm" else f"boundary_iou_api/{kind}"]
    folder = GOLDEN / "lvis"
    metrics = score(
        kind, program=score_lvis_files, pred=folder / "results.json", gt=folder / "gt.json"
    )
    same(metrics, want["stats"])


def test_lvis_bbox_rule_and_half_open_bins(tmp_path):
    folder = GOLDEN / "lvis"
    expected = read_golden("lvis/expected.json")["expected"]
    pred = with_tight_boxes(folder / "results.json", tmp_path / "r.json")
    boxed = score_lvis_files(pred=pred, gt=folder / "gt.json", area_rule="bbox")
    same(boxed.metrics, expected["with_tight_bbox_key/lvis_api/segm"]["stats"])
    gt = read_ground_truth(folder / "gt.json", lvis=True)
    dt = read_results(folder / "results.json", gt)
    plan = lvis.make_plan((None,), max_dets=None, per_instance=False)
    measure = type(plan.measures[0])(None, accumulate.size_bins(32, 96, closed=False))
    scored = score_detections(gt, dt, type(plan)((measure,), plan.limits, image_limit=300))
    same(
        lvis_metrics(scored.tables[0], gt.federation, 300),
        expected["boundary_iou_api/segm"]["stats"],
    )


@pytest.mark.parametrize("iou_type", ["segm", "boundary"])
@pytest.mark.parametrize("classes", ["class_aware", "class_agnostic"])
def test_ytvis(iou_type, classes):
    folder = GOLDEN / "video_ytvis"
    want = read_golden("video_ytvis/expected.json")["expected"]
    result = score_ytvis_files(
        pred=folder / "results.json",
        gt=folder / "gt.json",
        iou_type=iou_type,
        class_agnostic=classes != "class_aware",
    )
    same(
        result.metrics,
        want[f"tube_{'mask' if iou_type == 'segm' else 'boundary'}/{classes}"]["stats"],
    )
    assert not result.warnings


def test_tube_areas_bands_and_categories():
    folder, expected = GOLDEN / "video_ytvis", read_golden("video_ytvis/expected.json")
    truth = read_ytvis(folder / "gt.json")
    for annotation, area in expected["gt_avg_area"].items():
        at = truth.ids.tolist().index(int(annotation))
        assert truth.tubes.area[at] == pytest.approx(area, abs=1e-9)
    for video, want in expected["dilation_per_video"].items():
        at = truth.video_ids.tolist().index(int(video))
        size = int(truth.heights[at]), int(truth.widths[at])
        assert size == (want["height"], want["width"])
        assert dilation_pixels(*size, TUBE_DILATION_RATIO) == want["dilation_px"]
    found = read_tube_results(folder / "results.json", truth)
    for kind, tables in zip(("mask", "boundary"), score_tubes(truth, found).tables, strict=True):
        want = expected["expected"][f"tube_{kind}/class_aware"]["per_category_AP"]
        same_categories(truth.category_ids, tables, want)


@pytest.mark.parametrize("kind", ["mask", "boundary"])
def test_tube_matrices(kind):
    """Every entry of the matrices that the official program matches with."""
    folder = GOLDEN / "video_ytvis"
    truth = read_ytvis(folder / "gt.json")
    found = read_tube_results(folder / "results.json", truth)
    matrices = read_golden("video_ytvis/expected.json")["expected"][f"tube_{kind}/class_aware"][
        "tube_iou"
    ]
    entries = 0
    for cell in matrices.values():
        want = np.array(cell["iou"])
        rows = np.array(cell["result_index"])
        columns = np.array([truth.ids.tolist().index(i) for i in cell["gt_id"]], np.int64)
        i, j = (side.reshape(-1) for side in np.mgrid[: len(rows), : len(columns)])
        sides = side_of(found, rows, "result"), side_of(truth.tubes, columns, "annotation")
        got = tube_ious(*sides, i, j, boundary=False)
        if kind == "boundary":
            crowd = truth.tubes.crowd[columns][j]
            got = np.where(crowd, got, np.minimum(got, tube_ious(*sides, i, j, boundary=True)))
        assert got.reshape(want.shape) == pytest.approx(want, abs=1e-9)
        entries += want.size
    assert entries > 80


def test_best_tubes():
    folder = GOLDEN / "video_ytvis"
    truth = read_ytvis(folder / "gt.json")
    scored = score_tubes(
        truth, read_tube_results(folder / "results.json", truth), per_instance=True
    )
    best: dict[int, float] = {}
    for cell in read_golden("video_ytvis/expected.json")["expected"]["tube_mask/class_aware"][
        "tube_iou"
    ].values():
        best |= {
            i: max(row[column] for row in cell["iou"]) for column, i in enumerate(cell["gt_id"])
        }
    assert len(scored.best.gt) == 27  # 29 tubes, 2 of them crowds
    for row, iou in zip(truth.ids[scored.best.gt], scored.best.iou, strict=True):
        assert iou == pytest.approx(best.get(int(row), 0.0), abs=1e-9)


def test_size_bins_are_closed_or_half_open():
    areas = np.array([0.0, 1023.0, 1024.0, 9216.0, 9217.0])
    inside = {
        closed: [
            (~area.outside(areas)).tolist() for area in accumulate.size_bins(32, 96, closed=closed)
        ]
        for closed in (True, False)
    }
    assert inside[True][1:] == [
        [True, True, True, False, False],
        [False, False, True, True, False],
        [False, False, False, True, True],
    ]
    assert inside[False][1:] == [
        [True, True, False, False, False],
        [False, False, True, False, False],
        [False, False, False, True, True],
    ]
