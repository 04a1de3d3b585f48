"""Properties that hold for every mask and every set of detections."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hqsam_base.rle import decode_rle, encode_rle
from hqsam_base.runs import RleBatch
from hqsam_metrics.ap import accumulate, detection
from hqsam_metrics.ap.instances import parse_ground_truth
from hqsam_metrics.ap.results import parse_results
from hqsam_metrics.masks.iou import boundary_band, boundary_iou, mask_iou
from hqsam_metrics.masks.jf import region_and_contour
from hqsam_metrics.masks.one_to_one import paired_ious
from hqsam_metrics.reference import original_band
from hqsam_metrics.scores import coco
from hqsam_metrics.scores.lvis import score_lvis_files
from hqsam_metrics.scores.ytvis import score_ytvis_files
from tests.metrics.golden import read_golden
from tests.metrics.synthetic import detections, random_masks

SIDE = st.integers(1, 70)
SHAPE = st.tuples(SIDE, st.integers(1, 140))


@st.composite
def mask_pairs(draw):
    """Two masks of one size: blocks with noise, so that there are runs, holes, borders and empty ones."""
    shape = draw(SHAPE)
    seed = draw(st.integers(0, 2**32 - 1))
    return random_masks(np.random.default_rng(seed), 2, shape)


@given(arrays(np.bool_, SHAPE))
def test_run_length_code_goes_both_ways(mask):
    assert (decode_rle(encode_rle(mask)) == mask).all()


@given(mask_pairs(), st.integers(1, 40))
def test_band_is_that_of_repeated_erosion(pair, dilation):
    for mask in pair:
        want = original_band(mask.view(np.uint8), dilation).astype(bool)
        assert (boundary_band(mask, dilation=dilation) == want).all()


@given(mask_pairs(), st.integers(1, 40))
def test_band_is_a_chessboard_distance(pair, dilation):
    mask = np.pad(pair[0], 1).view(np.uint8)
    distance = cv2.distanceTransform(mask, cv2.DIST_C, 3)[1:-1, 1:-1]
    assert (boundary_band(pair[0], dilation=dilation) == (pair[0] & (distance <= dilation))).all()


@given(mask_pairs(), st.floats(0.001, 0.4))
def test_boundary_iou_is_symmetric_bounded_and_flips(pair, ratio):
    a, b = pair
    value = boundary_iou(pred=a, target=b, dilation_ratio=ratio)
    assert np.isnan(value) or 0 <= value <= 1
    assert value == pytest.approx(
        boundary_iou(pred=b, target=a, dilation_ratio=ratio), nan_ok=True, abs=0
    )
    for axis in (0, 1):
        flipped = boundary_iou(pred=np.flip(a, axis), target=np.flip(b, axis), dilation_ratio=ratio)
        assert flipped == pytest.approx(value, nan_ok=True, abs=0)
    assert boundary_iou(pred=a, target=a, dilation_ratio=ratio, empty="one") == 1


@given(mask_pairs())
def test_boundary_iou_of_thin_masks_is_mask_iou(pair):
    a, b = pair
    wide = max(a.shape)
    assert boundary_iou(pred=a, target=b, dilation=wide) == pytest.approx(
        mask_iou(pred=a, target=b), nan_ok=True
    )


@given(mask_pairs(), st.sampled_from([0.01, 0.02, 0.05, 0.2]))
def test_packed_engine_equals_arrays(pair, ratio):
    codes = [encode_rle(mask) for mask in pair]
    batches = [RleBatch.of([c["counts"].encode()], [c["size"][0]], [c["size"][1]]) for c in codes]
    found = paired_ious(*batches, (ratio,))
    a, b = pair
    assert found.iou[0] == pytest.approx(mask_iou(pred=a, target=b), nan_ok=True, abs=0)
    assert found.biou[0, 0] == pytest.approx(
        boundary_iou(pred=a, target=b, dilation_ratio=ratio), nan_ok=True, abs=0
    )
    assert found.intersection[0] == (a & b).sum()
    assert found.union[0] == (a | b).sum()


@given(mask_pairs())
def test_contour_f_is_symmetric_and_one_for_equal_masks(pair):
    a, b = pair
    assert region_and_contour(pred=a, target=a) == (1, 1)
    assert region_and_contour(pred=a, target=b) == pytest.approx(
        region_and_contour(pred=b, target=a), abs=1e-12
    )


SEEDS = st.integers(0, 2**32 - 1)


def tables(gt, dt, *, workers=1, agnostic=False):
    plan = coco.make_plan((None, 0.02), class_agnostic=agnostic, max_dets=None, per_instance=True)
    return detection.score_detections(gt, dt, plan, workers=workers)


def load(truth, rows):
    gt = parse_ground_truth(truth, "gt")
    return gt, parse_results([rows], gt, "results")


def values(scored):
    return [(t.precision, t.recall) for t in scored.tables]


def equal(one, other):
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(SEEDS)
def test_ap50_is_not_below_ap(seed):
    for table in tables(*load(*detections(np.random.default_rng(seed)))).tables:
        if table.ap() is not None:
            assert table.ap(iou=0.5) >= table.ap() - 1e-12


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_order_of_files_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    truth, rows = detections(rng, ties=False)
    shuffled = truth | {
        key: [truth[key][i] for i in rng.permutation(len(truth[key]))] for key in truth
    }
    mixed = [rows[i] for i in rng.permutation(len(rows))]
    equal(tables(*load(truth, rows)), tables(*load(shuffled, mixed)))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 7))
def test_chunks_change_nothing(seed, size):
    gt, dt = load(*detections(np.random.default_rng(seed)))
    whole = tables(gt, dt)
    patch = pytest.MonkeyPatch()
    with patch.context() as m:
        m.setattr(detection, "_CHUNK_MASKS", size)
        divided = tables(gt, dt)
    equal(whole, divided)
    np.testing.assert_array_equal(whole.best.iou, divided.best.iou)
    np.testing.assert_array_equal(whole.best.biou, divided.best.biou)


def test_workers_change_nothing(monkeypatch):
    gt, dt = load(*detections(np.random.default_rng(3), images=12))
    monkeypatch.setattr(detection, "_CHUNK_MASKS", 6)
    equal(tables(gt, dt), tables(gt, dt, workers=3))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS, st.randoms(use_true_random=False))
def test_merge_of_partials_is_the_whole(seed, random):
    gt, dt = load(*detections(np.random.default_rng(seed)))
    plan = coco.make_plan((0.02,), class_agnostic=False, max_dets=None, per_instance=False)
    want = detection.score_detections(gt, dt, plan).tables[0]
    parts = []
    for image in range(len(gt.images)):
        mine = np.flatnonzero(dt.image == image)
        own = np.flatnonzero(gt.image == image)
        some_dt = dataclasses.replace(
            dt,
            image=dt.image[mine],
            category=dt.category[mine],
            score=dt.score[mine],
            masks=dt.masks.take(mine),
            row=dt.row[mine],
        )
        some_gt = dataclasses.replace(
            gt,
            image=gt.image[own],
            category=gt.category[own],
            area=gt.area[own],
            crowd=gt.crowd[own],
            marked=gt.marked[own],
            ids=gt.ids[own],
            masks=gt.masks.take(own),
        )
        parts.append(detection.partial_results(some_gt, some_dt, plan)[0])
    random.shuffle(parts)
    half = len(parts) // 2
    merged = (
        accumulate.merge([accumulate.merge(parts[:half]), accumulate.merge(parts[half:])])
        if half
        else accumulate.merge(parts)
    )
    got = accumulate.finish(
        merged, n_categories=len(gt.category_ids), limits=plan.limits, bins=plan.measures[0].bins
    )
    np.testing.assert_array_equal(got.precision, want.precision)
    np.testing.assert_array_equal(got.recall, want.recall)


@pytest.mark.parametrize(
    ("function", "folder"), [(score_lvis_files, "lvis"), (score_ytvis_files, "video_ytvis")]
)
def test_order_and_workers_change_nothing_in_lvis_and_tubes(tmp_path, function, folder):
    rng = np.random.default_rng(9)
    truth, rows = (read_golden(f"{folder}/{name}.json") for name in ("gt", "results"))
    for row, score in zip(rows, rng.permutation(len(rows)) / len(rows), strict=True):
        row["score"] = float(score)  # without ties: those go by the order of the file

    def scored(workers):
        for name, content in (("gt", truth), ("dt", rows)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        files = {"pred": tmp_path / "dt.json", "gt": tmp_path / "gt.json"}
        return function(**files, iou_type="boundary", workers=workers).metrics

    want = scored(1)
    assert scored(2) == want
    rng.shuffle(rows)
    for key in ("images", "videos", "annotations", "categories"):
        rng.shuffle(truth.get(key, []))
    assert scored(1) == want
