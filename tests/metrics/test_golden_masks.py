"""Per-image values against the official programs (tests/golden/README.md says how they were made)."""

from __future__ import annotations

import numpy as np
import pytest

from hqsam_base.centre import centre_point, next_click
from hqsam_base.rle import encode_rle
from hqsam_base.runs import RleBatch
from hqsam_metrics import boundary_band, boundary_iou, mask_iou
from hqsam_metrics.curves import recall_counts, recall_curve
from hqsam_metrics.masks.iou import dilation_pixels, mask_box
from hqsam_metrics.masks.jf import bound_pixels, region_and_contour
from hqsam_metrics.masks.one_to_one import paired_ious
from tests.metrics.golden import read_golden

RATIOS = ("0.02", "0.01")


@pytest.mark.parametrize("ratio", RATIOS)
def test_bands_and_boundary_iou(golden_masks, golden_pairs, ratio):
    for key, pair in golden_pairs.items():
        want = pair["boundary"][ratio]
        pred, target = golden_masks[f"pred_{key}"], golden_masks[f"gt_{key}"]
        assert dilation_pixels(*target.shape, float(ratio)) == want["dilation_px"], pair["name"]
        bands = [boundary_band(m, dilation_ratio=float(ratio)) for m in (pred, target)]
        assert [int(b.sum()) for b in bands] == [want["pred_boundary_px"], want["gt_boundary_px"]]
        assert int((bands[0] & bands[1]).sum()) == want["intersection"]
        assert int((bands[0] | bands[1]).sum()) == want["union"]
        got = boundary_iou(pred=pred, target=target, dilation_ratio=float(ratio), empty="zero")
        assert got == pytest.approx(want["iou_api"], abs=1e-9)
        ours = boundary_iou(pred=pred, target=target, dilation_ratio=float(ratio))
        official = np.nan if want["iou_samhq"] is None else want["iou_samhq"]
        assert ours == pytest.approx(official, abs=1e-6, nan_ok=True)


def test_mask_iou_under_each_empty_rule(golden_masks, golden_pairs):
    for key, pair in golden_pairs.items():
        pred, target = golden_masks[f"pred_{key}"], golden_masks[f"gt_{key}"]
        want = pair["mask_iou"]
        assert mask_iou(pred=pred, target=target, empty="zero") == pytest.approx(
            want["coco"], abs=1e-9
        )
        assert mask_iou(pred=pred, target=target, empty="one") == pytest.approx(
            want["davis_J"], abs=1e-9
        )
        official = np.nan if want["samhq"] is None else want["samhq"]
        assert mask_iou(pred=pred, target=target) == pytest.approx(official, abs=1e-6, nan_ok=True)


def test_j_and_f(golden_masks, golden_pairs):
    for key, pair in golden_pairs.items():
        pred, target = golden_masks[f"pred_{key}"], golden_masks[f"gt_{key}"]
        j, f = region_and_contour(pred=pred, target=target)
        assert bound_pixels(*target.shape) == pair["davis_bound_px"]
        assert j == pytest.approx(pair["mask_iou"]["davis_J"], abs=1e-9)
        assert f == pytest.approx(pair["davis_F"], abs=1e-9), pair["name"]


def test_boxes(golden_masks, golden_pairs):
    for key, pair in golden_pairs.items():
        for side in ("gt", "pred"):
            want, box = pair[f"{side}_box"], mask_box(golden_masks[f"{side}_{key}"])
            assert box == (
                None if want["half_open_xyxy"] is None else tuple(want["half_open_xyxy"])
            )
            x0, y0, x1, y1 = box or (0, 0, 0, 0)
            assert [x0, y0, x1 - x0, y1 - y0] == want["coco_toBbox_xywh"]
            assert (None if box is None else [x0, y0, x1 - 1, y1 - 1]) == want["inclusive_xyxy"]


def test_centre_points(golden_masks, golden_pairs):
    for key, pair in golden_pairs.items():
        for side in ("gt", "pred"):
            want, mask = pair[f"{side}_center"], golden_masks[f"{side}_{key}"]
            found = centre_point(mask)
            if want is None:
                assert found is None
                continue
            assert list(found[0]) == want["xy"], pair["name"]
            assert found[1] == pytest.approx(want["distance"], abs=1e-3)
            assert round(found[1] ** 2) == want["distance_sq"]
            click = next_click(pred=np.zeros_like(mask), target=mask)
            assert click == (found[0], True)


def _batch(masks):
    codes = [encode_rle(mask) for mask in masks]
    sizes = np.array([code["size"] for code in codes])
    return RleBatch.of([code["counts"].encode() for code in codes], sizes[:, 0], sizes[:, 1])


def test_packed_engine_on_the_same_pairs(golden_masks, golden_pairs):
    pred, target = (
        _batch([golden_masks[f"{side}_{key}"] for key in golden_pairs]) for side in ("pred", "gt")
    )
    found = paired_ious(pred, target, (0.02, 0.01))
    for n, pair in enumerate(golden_pairs.values()):
        assert found.intersection[n] == pair["intersection"]
        assert found.union[n] == pair["union"]
        if pair["union"] == 0:
            assert np.isnan(found.iou[n]) and np.isnan(found.biou[:, n]).all()
            continue
        assert found.iou[n] == pytest.approx(pair["mask_iou"]["coco"], abs=1e-9)
        for r, ratio in enumerate(RATIOS):
            assert found.biou[r, n] == pytest.approx(pair["boundary"][ratio]["iou_api"], abs=1e-9)


@pytest.mark.parametrize(
    "curve", ["api_0.02", "api_0.01", "samhq_0.02", "samhq_0.01", "mask_iou_coco"]
)
def test_recall_curves(golden_pairs, curve):
    want = read_golden("recall_curve/expected.json")
    thresholds = want["thresholds"]
    want = want["curves"][curve]
    program, _, ratio = curve.partition("_")
    values = []
    for pair in golden_pairs.values():
        value = (
            pair["mask_iou"]["coco"]
            if program == "mask"
            else pair["boundary"][ratio][f"iou_{program}"]
        )
        values.append(np.nan if value is None else value)
    assert recall_curve(values, thresholds=thresholds).tolist() == want["strictly_above_all60"]
    assert (
        recall_curve(values, thresholds=thresholds, compare="at_or_above").tolist()
        == want["at_or_above_all60"]
    )
    assert recall_counts(values, thresholds=thresholds).tolist() == want["count_strictly_above"]
    real = [v for v, pair in zip(values, golden_pairs.values(), strict=True) if pair["gt_area"]]
    assert recall_curve(real, thresholds=thresholds).tolist() == want["strictly_above_nonempty_gt"]
    halves = [recall_counts(part, thresholds=thresholds) for part in (values[:17], values[17:])]
    assert (halves[0] + halves[1]).tolist() == want["count_strictly_above"]
