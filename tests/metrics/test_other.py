"""Bootstrap, clicks, CascadePSP's metrics, SGinW's mean, the seam, JSON writing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam_base.atomic import json_bytes
from hqsam_base.centre import next_click
from hqsam_base.errors import UserError
from hqsam_base.sginw import SETS
from hqsam_metrics import base
from hqsam_metrics.scores._cascadepsp import boundary_accuracy, measure, radii, total
from hqsam_metrics.scores._clicks import clicks_to, failures, miou_at, noc
from hqsam_metrics.scores.sginw import sginw_mean
from hqsam_metrics.stats import paired
from tests.metrics.synthetic import random_masks


def boot(a, b, clusters, seed=0, n=10_000):
    return paired(np.subtract(b, a), clusters, replicates=n, seed=seed)


def test_bootstrap_of_a_constant_gain():
    a = np.linspace(0, 0.5, 40)
    found = boot(a, a + 0.1, np.arange(40))
    assert (found.low, found.high) == pytest.approx((0.1, 0.1)) and found.mean == pytest.approx(0.1)
    assert found.n == found.clusters == 40 and found.p < 0.001


def test_bootstrap_is_calibrated_against_theory():
    rng = np.random.default_rng(4)
    difference = rng.normal(0.02, 0.1, 400)
    a = rng.random(400)
    found = boot(a, a + difference, np.arange(400), n=20_000)
    error = difference.std() / 20
    assert found.low == pytest.approx(difference.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(difference.mean() + 1.96 * error, abs=0.1 * error)


def test_bootstrap_resamples_clusters():
    # Ten instances of one image move together: the interval is that of the images, not of the
    # instances.
    rng = np.random.default_rng(5)
    image = np.repeat(np.arange(30), 10)
    a = rng.random(300)
    b = a + rng.normal(0, 0.1, 30)[image]
    clustered, alone = boot(a, b, image), boot(a, b, np.arange(300))
    assert (clustered.high - clustered.low) > 2 * (alone.high - alone.low)
    named = boot(a, b, [f"image {i}" for i in image])
    assert (named.low, named.high) == pytest.approx((clustered.low, clustered.high), abs=0.02)


def test_the_mean_of_clusters_of_unequal_size_is_that_of_their_units():
    found = boot(np.zeros(4), np.array([0.0, 1.0, 1.0, 1.0]), ["x", "y", "y", "y"])
    assert found.mean == 0.75 and (found.n, found.clusters, found.differing) == (4, 2, 1)


def test_bootstrap_repeats_and_leaves_out_the_undefined():
    rng = np.random.default_rng(6)
    a, b = rng.random((2, 50))
    a[3] = np.nan
    one, two = boot(a, b, np.arange(50), seed=9), boot(a, b, np.arange(50), seed=9)
    assert one == two and one.n == 49
    assert one != boot(a, b, np.arange(50), seed=10)
    same = boot(a, a, np.arange(50))
    assert (same.low, same.high, same.differing) == (0, 0, 0) and np.isnan(same.p)
    assert boot([np.nan], [1.0], ["x"]) is None
    single = boot([0.1, 0.2], [0.2, 0.3], ["x", "x"])
    assert single.mean == pytest.approx(0.1) and np.isnan(single.low)


@pytest.mark.parametrize(
    ("sizes", "differing", "why"),
    [
        ([1] * 7, 7, "7 images or videos; it takes 8"),
        ([1] * 8, 8, ""),
        ([1] * 8 + [4], 9, "count as 6.0; it takes 8.5"),
        ([1] * 40, 29, "only 29 of 40 images or videos differ"),
        ([1] * 40, 30, ""),
        ([1] * 400, 49, "only 49 of 400 images or videos differ"),
        ([1] * 400, 50, ""),
    ],
)
def test_few_clusters_or_few_that_differ_are_no_proof(sizes, differing, why):
    image = np.repeat(np.arange(len(sizes)), sizes)
    found = paired((image < differing) * (1.0 + image), image)
    assert why in found.too_few and bool(why) == bool(found.too_few)
    assert np.isnan(found.p) == np.isnan(found.low) == bool(why) and found.differing == differing


@pytest.mark.parametrize("arguments", [{"clusters": ["x"]}, {"a": [[1.0, 2.0]], "b": [[1.0, 2.0]]}])
def test_bootstrap_refuses(arguments):
    full = {"a": [0.0, 1.0], "b": [1.0, 1.0], "clusters": ["x", "y"]} | arguments
    with pytest.raises(ValueError):
        boot(full.pop("a"), full.pop("b"), full.pop("clusters"), **full)


def test_clicks():
    ious = np.array([[0.5, 0.9, 0.96], [0.91, 0.8, 0.97], [0.1, 0.2, 0.3]])
    assert clicks_to(ious, threshold=0.9, max_clicks=3).tolist() == [2, 1, 3]
    assert noc(ious, threshold=0.95, max_clicks=3) == pytest.approx(3)
    assert failures(ious, threshold=0.95, max_clicks=3) == 1
    assert miou_at(ious, click=2) == pytest.approx((0.9 + 0.8 + 0.2) / 3)
    assert noc(ious[:2], threshold=0.9) == 1.5
    for call in (
        lambda: noc(ious, threshold=0.9),
        lambda: miou_at(ious, click=4),
        lambda: noc([[np.nan]], threshold=0.9, max_clicks=1),
        lambda: noc([0.1], threshold=0.9),
    ):
        with pytest.raises(ValueError):
            call()


def test_next_click():
    target, pred = np.zeros((2, 20, 30), bool)
    assert next_click(pred=pred, target=target) is None
    target[2:9, 2:9] = pred[2:9, 2:9] = True
    pred[12:17, 10:15] = True  # five wide, wrong
    assert next_click(pred=pred, target=target) == ((12, 14), False)
    target[5:16, 18:29] = True  # eleven wide, missing
    assert next_click(pred=pred, target=target) == ((23, 10), True)
    target[5:16, 18:29] = False
    target[12:17, 20:25] = True  # as deep as the wrong one
    assert next_click(pred=pred, target=target) == ((12, 14), False)
    with pytest.raises(ValueError, match="size"):
        next_click(pred=pred, target=target.T)


def plain_accuracy(pred, target):
    values = []
    for radius in radii(*target.shape):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        near = cv2.morphologyEx(target.view(np.uint8), cv2.MORPH_GRADIENT, kernel) > 0
        values.append(np.mean(pred[near] == target[near]) if near.any() else np.nan)
    return np.mean(values)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 400), st.integers(2, 400))
def test_boundary_accuracy_in_the_box_is_that_of_the_picture(seed, height, width):
    pred, target = random_masks(np.random.default_rng(seed), 2, (height, width))
    got = boundary_accuracy(pred=pred, target=target)
    assert got == pytest.approx(plain_accuracy(pred, target), abs=1e-12, nan_ok=True)


def test_cascade_counts_add_up():
    rng = np.random.default_rng(8)
    pairs = [random_masks(rng, 2, (50, 60)) for _ in range(6)]
    parts = [measure(key=str(n), pred=a, target=b) for n, (a, b) in enumerate(pairs)]
    whole = total(parts)
    assert whole.iou == sum((a & b).sum() for a, b in pairs) / sum((a | b).sum() for a, b in pairs)
    halves = total(parts[3:]) + total(parts[:3])
    assert (halves.iou, halves.mba) == (whole.iou, whole.mba)
    assert total([]).iou is None and total([]).mba is None


def test_sginw_mean_wants_all_sets():
    values = {name: k / 100 for k, name in enumerate(SETS)}
    assert len(SETS) == 25 and sginw_mean(values) == pytest.approx(0.12)
    for wrong in (
        values | {"More": 1.0},
        {k: v for k, v in values.items() if k != "Rail"},
        values | {"Rail": None},
    ):
        with pytest.raises(UserError, match="SGinW"):
            sginw_mean(wrong)


def test_the_seam():
    assert base.score_names() == ["coco", "davis", "lvis", "masks", "sginw", "ytvis"]
    for name in base.score_names():
        score = base.load_score(name)
        assert score.name == name and score.version >= 1
        block = score.protocol(base.score_options({"metric": name, "version": score.version}))
        assert block["evaluator_version"] == score.version and block["empty_mask_rule"]
    with pytest.raises(UserError, match="use one of coco"):
        base.load_score("../coco")


@pytest.mark.parametrize(
    "arguments",
    [
        {"dilation_ratio": 0},
        {"dilation_ratio": float("nan")},
        {"strict_dilation_ratio": 2},
        {"max_dets": 0},
        {"score_rule": "iou"},
    ],
)
def test_options_refuse(arguments):
    with pytest.raises(UserError, match=next(iter(arguments))):
        base.score_options({"metric": "coco", "version": 1} | arguments)
    with pytest.raises(TypeError):
        base.score_options({"metric": "coco", "version": 1, "unknown": 1})


def test_json_is_plain_and_of_one_spelling():
    content = {"b": np.float64(0.5), "a": [float("nan"), np.int64(3), (1, "\u00e9")]}
    text = b'{\n "a": [\n  null,\n  3,\n  [\n   1,\n   "\\u00e9"\n  ]\n ],\n "b": 0.5\n}\n'
    assert json_bytes(base.plain(content), ascii_only=True) == text


KILLED = """
import os, time
from hqsam_base.processes import run_parts

def work(job, number):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(0.02)

for _ in run_parts(work, None, 200, workers=2, progress=lambda done, total, what: done == 30 and os.kill(os.getpid(), 9)):
    pass
"""


def test_no_process_outlives_a_scorer_that_is_killed(tmp_path):
    """They would end their work and then wait for more."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    found = {int(pid) for pid in done.stdout.split()}
    assert done.returncode == -9 and len(found) == 2
    deadline = time.monotonic() + 20
    while (
        left := [pid for pid in found if Path(f"/proc/{pid}").exists()]
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
