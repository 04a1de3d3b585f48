"""J and F against their definition on random masks, with wide and narrow tolerances."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam_metrics.masks.iou import mask_iou
from hqsam_metrics.masks.jf import region_and_contour
from tests.metrics.definitions import contour_f
from tests.metrics.synthetic import random_masks

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(SEEDS, st.integers(2, 24), st.integers(2, 24), st.sampled_from([0.008, 0.05, 0.12]))
def test_j_and_f_equal_the_definition(seed, height, width, bound_th):
    pred, target = random_masks(np.random.default_rng(seed), 2, (height, width))
    j, f = region_and_contour(pred=pred, target=target, bound_th=bound_th)
    assert j == pytest.approx(mask_iou(pred=pred, target=target, empty="one"), abs=1e-12)
    assert f == pytest.approx(
        contour_f(pred, target, math.ceil(bound_th * math.hypot(height, width))), abs=1e-12
    )


def test_an_opencv_disk_is_the_euclidean_one():
    """F looks contours up in a dilation by a disk: it must hold exactly the pixels within the radius."""
    from hqsam_metrics.masks.jf import _disk

    for radius in (1, 4, 8, 27):
        point = np.zeros((61, 61), np.uint8)
        point[30, 30] = 1
        y, x = np.ogrid[-30:31, -30:31]
        assert (cv2.dilate(point, _disk(radius)) == (x * x + y * y <= radius * radius)).all()
