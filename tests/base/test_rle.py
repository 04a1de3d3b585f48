"""Run-length masks that do not fill their image are refused: pycocotools would leave pixels as the memory was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from hqsam_base import rle


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 70), st.integers(1, 70))))
def test_what_pycocotools_writes_is_taken(mask: np.ndarray) -> None:
    height, width = mask.shape
    counts, listed = rle.encode(mask), rle.to_uncompressed(mask)
    for spelling in (
        {"counts": counts, "size": [height, width]},
        {"counts": counts.encode()},
        listed,
    ):
        assert rle.from_segmentation(spelling, height=height, width=width) == counts
    assert np.array_equal(rle.decode(counts, height=height, width=width), mask)
    assert rle.area(counts, height=height, width=width) == mask.sum()


def test_runs_of_large_images() -> None:
    mask = np.zeros((9000, 12_000), bool)
    mask[100:8000, 1:11_000:1000] = True
    counts = rle.encode(mask)
    assert rle.from_segmentation({"counts": counts}, height=9000, width=12_000) == counts


@pytest.mark.parametrize(
    "counts",
    ["", "0", "P1", "zz~~", "1o`c0PWh_f\\", "é", "0" * 9 + "PPPPPPPP1", "P2", [10, -5, 2075], [3]],
)
def test_runs_that_do_not_fill_the_image_are_refused(counts: object) -> None:
    with pytest.raises((ValueError, OverflowError)):
        rle.from_segmentation({"size": [40, 52], "counts": counts}, height=40, width=52)


def test_a_cut_off_mask_is_refused_wherever_it_is_cut() -> None:
    mask = np.random.default_rng(0).random((40, 52)) < 0.3
    counts = rle.encode(mask)
    for end in range(len(counts)):
        with pytest.raises(ValueError, match=r"run length|the last number is cut off"):
            rle.from_segmentation({"counts": counts[:end]}, height=40, width=52)


@pytest.mark.parametrize(
    "wrong",
    [
        [[1e308, 1, 5, 5, 9, 9]],
        [[10**400, 1, 5, 5, 9, 9]],
        [[float("nan"), 1, 5, 5, 9, 9]],
        [[None, 1, 5, 5, 9, 9]],
        [[1e9, 1, 5, 5, 9, 9]],
        [["a", 1, 5, 5, 9, 9]],
        [[[1, 1], [5, 5], [9, 9], [1, 5], [2, 5], [3, 5]]],
        [[1, 1, 5, 5, 9, 9], 5],
        {"size": 5, "counts": [600]},
        {"size": [20, 30], "counts": [-5, 605]},
        {"size": [20, 30], "counts": [2**32, 600 - 2**32]},
        {"size": [20, 30], "counts": [10, "a"]},
    ],
)
def test_what_the_c_code_would_die_of_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"segmentation|polygon|counts|size|run length"):
        rle.from_segmentation(wrong, height=20, width=30)


def test_polygons_may_reach_over_the_frame() -> None:
    mask = rle.decode(
        rle.from_segmentation([[-50, -50, 500, -50, 500, 9.5, -50, 9.5]], height=20, width=30),
        height=20,
        width=30,
    )
    assert mask[:9].all() and not mask[11:].any()


def test_stray_pieces_of_polygons_draw_nothing() -> None:
    """Pieces of one or two points and an odd last value: the same bytes as pycocotools, which takes them."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        height, width = (int(side) for side in rng.integers(2, 60, 2))
        polygon = (
            rng.uniform(-5, 65, 2 * int(rng.integers(3, 9))).round(int(rng.integers(0, 3))).tolist()
        )
        odd = [*polygon, float(rng.uniform(0, 60))]
        pieces = [
            rng.uniform(0, 60, n).tolist()
            for n in rng.choice([2, 3, 4, 5], int(rng.integers(0, 3)))
        ]
        theirs = coco_mask.merge(coco_mask.frPyObjects([odd, *pieces], height, width))[
            "counts"
        ].decode()
        assert rle.from_segmentation([odd, *pieces], height=height, width=width) == theirs


def test_a_polygon_that_goes_round_twice_is_empty() -> None:
    """As in pycocotools: what is drawn over twice is outside again."""
    square = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]
    assert (
        rle.area(rle.from_segmentation([square], height=20, width=20), height=20, width=20) == 100
    )
    assert (
        rle.area(rle.from_segmentation([square * 2], height=20, width=20), height=20, width=20) == 0
    )


def test_run_lengths_are_whole_numbers_and_outlines_no_endless_walk() -> None:
    for counts in ([0.5, 0.5, 8], [-1, 10], [2**40, 9 - 2**40], [[9]], ["9"]):
        with pytest.raises(ValueError, match="`counts` must be"):
            rle.from_segmentation({"size": [3, 3], "counts": counts}, height=3, width=3)
    far = [[0, 0, 90_000, 90_000] * 20]
    with pytest.raises(ValueError, match="longer than those of any object"):
        rle.from_segmentation(far, height=3, width=3)
    assert rle.area(rle.from_segmentation([far[0][:12]], height=3, width=3), height=3, width=3) >= 0
