"""The fast ways against slow and plain ones on random input: lvis-api, whole frames, arrays instead of packed bits."""

from __future__ import annotations

import json
import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hqsam_metrics.ap.options import TUBE_DILATION_RATIO
from hqsam_metrics.ap.tubes import pair_tubes, side_of
from hqsam_metrics.ap.tubes_io import parse_tube_results, parse_ytvis
from hqsam_metrics.masks.iou import boundary_band, encode_rle, mask_iou
from hqsam_metrics.masks.jf import region_and_contour
from hqsam_metrics.reference import lvis_reference
from hqsam_metrics.scores.lvis import score_lvis_files
from tests.metrics.synthetic import detections, random_masks

SEEDS = st.integers(0, 2**32 - 1)


def federated(rng: np.random.Generator) -> tuple[Any, Any]:
    """A random LVIS set: negative and not exhaustive categories, all three frequencies, empty detections."""
    truth, rows = detections(rng, images=6, categories=4)
    ids = [category["id"] for category in truth["categories"]]
    for image in truth["images"]:
        there = {row["category_id"] for row in truth["annotations"] if row["image_id"] == image["id"]}
        image["neg_category_ids"] = [i for i in ids if i not in there and rng.random() < 0.5]
        image["not_exhaustive_category_ids"] = [i for i in there if rng.random() < 0.3]
    for category, letter in zip(truth["categories"], "rcff", strict=True):
        category |= {"frequency": letter, "image_count": 1, "instance_count": 1}
    for row in truth["annotations"]:
        row["bbox"] = [0, 0, 1, 1]
        row["area"] = float(rng.choice([0.0, 1024.0, 9216.0, row["area"], row["area"], row["area"]]))
    return truth, rows


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEEDS)
def test_lvis_equals_lvis_api_on_random_sets(tmp_path, seed):
    truth, rows = federated(np.random.default_rng(seed))
    if not rows:
        return
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    gt.write_text(json.dumps(truth))
    dt.write_text(json.dumps(rows))
    got = score_lvis_files(pred=dt, gt=gt).metrics
    for name, value in lvis_reference(gt, rows).items():
        assert (-1 if got[name] is None else got[name]) == pytest.approx(value, abs=1e-9), name


def plain_contour(mask: np.ndarray) -> np.ndarray:
    """Pixel by pixel, as the definition reads."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            others = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if y == height - 1:
                others = others[:1]
            elif x == width - 1:
                others = others[1:2]
            out[y, x] = any(b < height and a < width and mask[b, a] != mask[y, x] for b, a in others)
    return out


def plain_f(pred: np.ndarray, target: np.ndarray, radius: int) -> float:
    """Contours by hand, near each other when the squared distance of two pixels is at most the squared radius."""
    a, b = (np.argwhere(plain_contour(mask)) for mask in (pred, target))
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    near = ((a[:, None] - b[None]) ** 2).sum(2) <= radius * radius
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SEEDS, st.integers(2, 24), st.integers(2, 24), st.sampled_from([0.008, 0.05, 0.12]))
def test_j_and_f_equal_the_definition(seed, height, width, bound_th):
    pred, target = random_masks(np.random.default_rng(seed), 2, (height, width))
    j, f = region_and_contour(pred=pred, target=target, bound_th=bound_th)
    assert j == pytest.approx(mask_iou(pred=pred, target=target, empty="one"), abs=1e-12)
    assert f == pytest.approx(plain_f(pred, target, math.ceil(bound_th * math.hypot(height, width))), abs=1e-12)


def tube_set(rng: np.random.Generator) -> tuple[Any, Any, list[list[np.ndarray]], list[list[np.ndarray]]]:
    """One video: annotations and results of random tubes of random lengths, with null frames and uncompressed codes."""
    frames, shape = int(rng.integers(1, 6)), (int(rng.integers(5, 70)), int(rng.integers(5, 90)))

    def code(mask: np.ndarray) -> Any:
        if not mask.any() and rng.random() < 0.5:
            return None
        if rng.random() < 0.5:
            return encode_rle(mask)
        flat = np.concatenate([[False], mask.T.reshape(-1)])
        edges = np.flatnonzero(np.append(flat[1:] != flat[:-1], True))
        return {"size": list(shape), "counts": np.diff(edges, prepend=0).tolist()}

    tubes = [[random_masks(rng, int(rng.integers(1, frames + 1)), shape) for _ in range(3)] for _ in range(2)]
    video = {"id": 7, "height": shape[0], "width": shape[1], "length": frames}
    head = {"video_id": 7, "category_id": 1}
    codes = [[[code(mask) for mask in tube] for tube in side] for side in tubes]
    found = [head | {"score": 0.5, "segmentations": one} for one in codes[0]]
    real = [
        head | {"id": n + 1, "iscrowd": int(n == 2), "segmentations": one, "areas": [float(m.sum()) for m in tube]}
        for n, (one, tube) in enumerate(zip(codes[1], tubes[1], strict=True))
    ]
    return {"videos": [video], "categories": [{"id": 1}], "annotations": real}, found, *tubes


def plain_tube_iou(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    both = sum(int((x & y).sum()) for x, y in zip(a, b, strict=False))
    either = sum(int((x | y).sum()) for x, y in zip(a, b, strict=False))
    return both / either if either else 0.0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEDS)
def test_tube_ious_equal_sums_over_decoded_frames(seed):
    truth, rows, found, real = tube_set(np.random.default_rng(seed))
    gt = parse_ytvis(truth, "gt")
    dt = parse_tube_results(rows, gt, "dt")
    sides = side_of(dt, np.arange(3), "result"), side_of(gt.tubes, np.arange(3), "annotation")
    i, j = (side.reshape(-1) for side in np.mgrid[:3, :3])
    pairs = pair_tubes(*sides, i, j, gt.tubes.crowd, boundary=True, per_instance=True)
    value = pairs.value(0)
    bands = [
        [[boundary_band(m, dilation_ratio=TUBE_DILATION_RATIO) for m in tube] for tube in side]
        for side in (found, real)
    ]
    assert len(pairs.dt) == 9
    for d, g, iou, biou, used in zip(pairs.dt, pairs.gt, pairs.iou, pairs.biou[0], value, strict=True):
        want = plain_tube_iou(found[d], real[g])
        assert iou == want
        if gt.tubes.crowd[g]:
            assert np.isnan(biou) and used == want
        elif not np.isnan(biou):
            assert biou == plain_tube_iou(bands[0][d], bands[1][g]) and used == min(iou, biou)


def test_an_opencv_disk_is_the_euclidean_one():
    """F looks contours up in a dilation by a disk: it must hold exactly the pixels within the radius."""
    from hqsam_metrics.masks.jf import _disk

    for radius in (1, 4, 8, 27):
        point = np.zeros((61, 61), np.uint8)
        point[30, 30] = 1
        y, x = np.ogrid[-30:31, -30:31]
        assert (cv2.dilate(point, _disk(radius)) == (x * x + y * y <= radius * radius)).all()
