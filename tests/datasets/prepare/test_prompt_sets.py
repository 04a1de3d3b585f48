"""Prompt sets that are made from masks: what each draws, and that nothing but seed, set and object decides it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hqsam_base import rle
from hqsam_base.centre import centre_point
from hqsam_base.rle import tight_box
from hqsam_datasets.benchmarks.base import BenchmarkOptions, Item, Truth
from hqsam_datasets.prepare import index
from hqsam_datasets.prompts.sets import SHIFTS, TRIALS, examples, mask_set


def blob() -> np.ndarray:
    """An ellipse with a hole and a thin arm, in the corner of a wide picture."""
    drawn = np.zeros((120, 200), np.uint8)
    cv2.ellipse(drawn, (70, 60), (60, 40), 20, 0, 360, 1, -1)
    cv2.circle(drawn, (60, 60), 9, 0, -1)
    drawn[58:60, 120:180] = 1
    return drawn > 0


def draw(name: str, mask: np.ndarray, seed: int = 0, **options):
    return mask_set(name, **options).draw(mask, np.random.default_rng(seed))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_noised_boxes_stay_within_their_ratio_and_their_picture() -> None:
    mask = blob()
    x0, y0, x1, y1 = tight_box(mask)
    found = np.array([draw("box_noise_0.4", mask, seed).box for seed in range(400)])
    width, height = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    assert (found[:, :2] >= 0).all() and (found[:, 2] <= 200).all() and (found[:, 3] <= 120).all()
    assert width.max() <= 1.4 * (x1 - x0) and height.min() >= 0.6 * (y1 - y0) - 1e-9
    centre = (found[:, 0] + found[:, 2]) / 2 - (x0 + x1) / 2
    assert 0.1 * (x1 - x0) < np.abs(centre).max() <= 0.2 * (x1 - x0) + 1e-9
    small = np.array([draw("box_noise_0.05", mask, seed).box for seed in range(100)])
    assert np.abs(small - [x0, y0, x1, y1]).max() < 0.06 * (x1 - x0)


def test_one_point_is_the_farthest_from_the_boundary_and_several_lie_on_the_object() -> None:
    mask = blob()
    [point] = draw("points_1", mask).points
    assert tuple(point) == centre_point(mask)[0] and mask_set("points_1").trials == 1
    found = draw("points_10+5", mask)
    assert found.labels.tolist() == [1] * 10 + [0] * 5 and mask_set("points_10+5").trials == TRIALS
    for (x, y), label in zip(found.points.astype(int), found.labels, strict=True):
        assert mask[y, x] == bool(label)
    assert len({tuple(p) for p in found.points.tolist()}) == 15
    three = np.zeros((9, 9), bool)
    three[4, 3:6] = True
    assert len(draw("points_10", three).points) == 3, "no more than there are pixels"
    assert draw("points_3", np.zeros((9, 9), bool)) is None


@pytest.mark.parametrize("how", ["eroded", "dilated", "polygon"])
def test_coarse_masks_get_coarser_with_each_level(how: str) -> None:
    mask = blob()
    levels = [draw(f"coarse_{how}_{level}", mask).mask for level in SHIFTS]
    qualities = [iou(mask, level) for level in levels]
    assert 1 > qualities[0] > qualities[1] > qualities[2] > 0.2
    assert not np.array_equal(draw(f"coarse_{how}_2", mask, 1).mask, levels[1]), "seeded"
    if how == "eroded":
        assert not (levels[2] & ~mask).any()
    if how == "dilated":
        assert not (mask & ~levels[0]).any()
    line = np.zeros((50, 50), bool)
    line[20, 5:45] = True
    assert draw(f"coarse_{how}_3", line).mask.any(), "a thin object stays"


def test_boxes_of_the_network_s_square_are_those_of_the_resized_mask() -> None:
    mask = np.zeros((1500, 3000), bool)
    mask[400:900, 700:1400] = True
    box = draw("gt_box", mask, box_side=1024).box
    scaled = box / np.tile([3000 / 1024, 1500 / 1024], 2)
    assert np.allclose(scaled, np.round(scaled)), "whole pixels of the square"
    assert 0 < np.abs(box - draw("gt_box", mask).box).max() < 3000 / 1024
    full = np.zeros((64, 64), bool)
    full[10:20, 30:40] = True
    assert draw("gt_box", full).box.tolist() == [30, 10, 39, 19]
    assert draw("gt_box", full, box_side=64).box.tolist() == [30, 10, 39, 19]


def item(video: str, frame: int, x: int | None) -> Item:
    mask = np.zeros((20, 40), bool)
    if x is not None:
        mask[5:9, x : x + 4] = True
    truth = Truth(instance_id=f"{video}{frame}", rle=rle.encode(mask), area=1.0, track_id=7)
    return Item(
        key=f"{video}_{frame}",
        path=Path("x"),
        image_id=1,
        height=20,
        width=40,
        video=video,
        frame=frame,
        truths=(truth,),
    )


def test_the_stand_in_tracker_gives_the_box_of_the_frame_before() -> None:
    drawn = index._Drawn(mask_set("previous_frame_box"), 0)
    frames = [
        item("a", 0, 2),
        item("a", 1, 6),
        item("a", 2, None),
        item("a", 3, 20),
        item("b", 0, 30),
    ]
    found = [[row["x0"] for row in drawn.rows(frame)] for frame in frames]
    assert found == [[2.0], [2.0], [6.0], [6.0], [30.0]], (
        "the last that showed it; its own at first"
    )
    followed = index._Drawn(mask_set("tracked_box"), 0)
    found = [[row["x0"] for row in followed.rows(frame)] for frame in frames]
    assert found == [[2.0], [2.0], [2.0], [2.0], [30.0]], "the first; the others are a system's own"


def test_names_and_seeds_that_make_no_sense_are_refused() -> None:
    assert all(mask_set(name) is not None for name in examples())
    for name in ("points_0", "points_03", "box_noise_1.5", "coarse_eroded_4", "gt_circle", "boxes"):
        with pytest.raises(ValueError, match=f"no prompt set {name.split('+')[0]}"):
            BenchmarkOptions(prompt_sets=(name,))
    with pytest.raises(ValueError, match="no prompt set of this benchmark is drawn"):
        BenchmarkOptions(prompt_sets=("gt_box", "points_1"), seed=3)
    assert BenchmarkOptions(prompt_sets=("points_3",), seed=3).seed == 3
