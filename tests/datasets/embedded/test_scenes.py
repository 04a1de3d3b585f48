"""Procedural scenes: exact masks, determinism, disjoint families, objects that can be found."""

import time
from itertools import combinations, pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam_datasets.embedded import scenes
from hqsam_datasets.embedded.families import FAMILIES
from hqsam_datasets.embedded.shapes import (
    Pose,
    circle,
    cut,
    fill,
    loop,
    paint,
    proportion,
    rasterise,
    segment,
    stroke,
)
from hqsam_datasets.embedded.texture import noise

ALL = scenes.TRAIN_FAMILIES + scenes.EVAL_FAMILIES + scenes.EVERYDAY_FAMILIES + scenes.DEV_FAMILIES


def render(family, seed, **options):
    sizes = {"height": 120, "width": 150} | options
    return scenes.render_scene(rng=np.random.default_rng(seed), families=[family], **sizes)


def test_evaluation_families_are_disjoint_from_training():
    groups = (
        scenes.TRAIN_FAMILIES,
        scenes.EVAL_FAMILIES,
        scenes.EVERYDAY_FAMILIES,
        scenes.DEV_FAMILIES,
    )
    for one, other in combinations(map(set, groups), 2):
        assert not one & other
    assert set(ALL) == set(FAMILIES)
    assert len(ALL) == len(set(ALL)) >= 40


@pytest.mark.parametrize("family", ALL)
def test_every_family_fills_its_place_with_a_soft_edged_mask(family):
    for seed in range(3):
        scene = render(family, seed)
        (only,) = scene.objects
        assert only.family == family
        assert scene.image.shape == (120, 150, 3)
        assert scene.image.dtype == only.colour.dtype == np.uint8
        assert only.alpha.shape == (120, 150)
        assert only.alpha.dtype == np.float32
        assert only.alpha.min() >= 0 and only.alpha.max() <= 1
        ys, xs = np.nonzero(only.alpha > 0.5)
        assert len(ys) > 100
        assert max(np.ptp(ys), np.ptp(xs)) + 1 > 0.4 * 120
        box = (np.ptp(ys) + 1) * (np.ptp(xs) + 1)
        assert family not in scenes.EVERYDAY_FAMILIES or len(ys) > 0.25 * box, (
            "everyday things are mostly solid"
        )
        assert ys.min() > 0 and xs.min() > 0 and ys.max() < 119 and xs.max() < 149, (
            "a single object lies inside"
        )
        assert np.count_nonzero((only.alpha > 0.02) & (only.alpha < 0.98)) > 30, (
            "edges are anti-aliased"
        )


@pytest.mark.parametrize("family", ALL)
def test_object_differs_from_its_surroundings(family):
    scene = render(family, 11, clutter=0)
    inside = scene.objects[0].alpha > 0.95
    ring = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9))) > 0
    ring &= scene.objects[0].alpha < 0.05
    colours = scene.image.astype(float)
    assert np.linalg.norm(colours[inside].mean(0) - colours[ring].mean(0)) > 12


def test_same_seed_same_bytes_and_other_seed_other_picture():
    first, again, other = render("sketch", 1), render("sketch", 1), render("sketch", 2)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.objects[0].alpha.tobytes() == again.objects[0].alpha.tobytes()
    assert np.mean(first.image != other.image) > 0.5


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(48, 220),
    width=st.integers(48, 220),
    n=st.integers(0, 5),
)
def test_any_size_any_number_of_objects(seed, height, width, n):
    scene = scenes.render_scene(
        rng=np.random.default_rng(seed), families=ALL, height=height, width=width, n_objects=n
    )
    assert scene.image.shape == (height, width, 3)
    assert len(scene.objects) == n
    total = sum((o.alpha for o in scene.objects), np.zeros((height, width), np.float32))
    assert total.max() <= 1.0 + 1e-5, "visible parts never overlap"


def test_thin_families_are_thin_and_plain_ones_are_not():
    def half_width(family):
        values = []
        for seed in range(6):
            mask = (render(family, seed).objects[0].alpha > 0.5).astype(np.uint8)
            values.append(cv2.distanceTransform(mask, cv2.DIST_L2, 5)[mask > 0].mean())
        return np.mean(values)

    for family in ("rope", "fence", "ladder", "spider_web", "net_bag", "bicycle", "antenna"):
        assert half_width(family) < 2.5 < 5 < half_width("blob")


@pytest.mark.parametrize("family", scenes.EVERYDAY_FAMILIES)
def test_everyday_things_keep_their_proportions(family):
    """Whatever the picture's format; the other families are stretched at will, so a bicycle can be square."""
    for seed in range(4):
        shape = FAMILIES[family](np.random.default_rng(seed))
        assert 0.25 < proportion(shape) < 3
        wide, tall = (
            render(family, seed, height=h, width=w, clutter=0) for h, w in ((100, 200), (200, 100))
        )
        sides = []
        for scene in (wide, tall):
            ys, xs = np.nonzero(scene.objects[0].alpha > 0.5)
            sides.append((np.ptp(xs) + 1) / (np.ptp(ys) + 1))
        assert sides[0] == pytest.approx(sides[1], rel=0.12)


def test_marks_change_the_surface_and_not_the_outline():
    body, mark = fill(circle((0, 0), 1, 60)), paint(circle((0.9, 0), 0.6, 30))
    pose = Pose(center=(40, 40), half_size=(30, 30))
    plain = rasterise([body], pose=pose, height=100, width=100)
    assert np.array_equal(plain, rasterise([body, mark], pose=pose, height=100, width=100))
    marked = rasterise([body, mark], pose=pose, height=100, width=100, marks=True)
    assert marked.sum() == pytest.approx(np.pi * 18**2, rel=0.03)
    assert not rasterise([body], pose=pose, height=100, width=100, marks=True).any()


def test_scenery_takes_the_place_of_the_objects_families_behind_them():
    def masks(**options):
        scene = render("car", 5, clutter=4, **options)
        return scene.image, scene.objects[0].family

    (same, family), (other, family_too) = masks(), masks(scenery=scenes.TRAIN_FAMILIES)
    assert family == family_too == "car"
    assert np.mean(same != other) > 0.2


def test_a_loop_is_closed_and_runs_through_its_points():
    control = np.array([[1, 0], [0.5, 1], [-1, 0.3], [-0.2, -1]], float)
    curve = loop(control, 200)
    gaps = np.linalg.norm(curve - np.roll(curve, 1, axis=0), axis=1)
    assert gaps.max() < 4 * np.median(gaps), "also from the last vertex to the first"
    assert max(np.linalg.norm(curve - p, axis=1).min() for p in control) < 0.05


def test_clip_keeps_identity_and_moves_smoothly():
    clip = scenes.render_clip(
        rng=np.random.default_rng(4),
        families=scenes.EVAL_FAMILIES,
        height=96,
        width=128,
        n_frames=6,
        n_objects=3,
    )
    assert len(clip) == 6
    names = [o.family for o in clip[0].objects]
    for before, after in pairwise(clip):
        assert [o.family for o in after.objects] == names
        assert not np.array_equal(before.image, after.image)
        for a, b in zip(before.objects, after.objects, strict=True):
            if min(a.alpha.sum(), b.alpha.sum()) > 150:
                centers = [np.argwhere(o.alpha > 0.3).mean(0) for o in (a, b)]
                assert np.linalg.norm(centers[0] - centers[1]) < 20


def test_compose_pastes_the_object_and_nothing_else():
    scene = render("wheel", 3)
    ground = scenes.render_background(rng=np.random.default_rng(9), height=120, width=150)
    pasted = scenes.compose(background=ground, objects=scene.objects)
    outside = scene.objects[0].alpha == 0
    assert np.array_equal(pasted[outside], ground[outside])
    inside = scene.objects[0].alpha == 1
    assert np.array_equal(pasted[inside], scene.objects[0].colour[inside])
    with pytest.raises(ValueError, match="background"):
        scenes.compose(background=ground[:-1], objects=scene.objects)


def test_bad_requests_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unicorn"):
        scenes.render_scene(rng=rng, families=["unicorn"], height=64, width=64)
    with pytest.raises(ValueError, match="families"):
        scenes.render_scene(rng=rng, families=[], height=64, width=64)
    with pytest.raises(ValueError, match="16"):
        scenes.render_scene(rng=rng, families=["blob"], height=8, width=64)


def test_rasterised_areas_are_right():
    pose = Pose(center=(50, 50), half_size=(30, 30))
    disc = rasterise([fill(circle((0, 0), 1, 200))], pose=pose, height=100, width=100)
    assert disc.sum() == pytest.approx(np.pi * 30**2, rel=0.02)
    ring = rasterise(
        [fill(circle((0, 0), 1, 200)), cut(circle((0, 0), 0.5, 200))],
        pose=pose,
        height=100,
        width=100,
    )
    assert ring.sum() == pytest.approx(np.pi * (30**2 - 15**2), rel=0.02)
    bar = rasterise(
        [stroke(segment((-1, 0), (1, 0)), 0.2)], pose=Pose((50, 50), (30, 5)), height=100, width=100
    )
    ys, xs = np.nonzero(bar > 0.5)
    assert xs.min() == pytest.approx(20, abs=2) and xs.max() == pytest.approx(80, abs=2)
    assert np.ptp(ys) < 16


def test_noise_is_centred_and_bounded():
    field = noise(np.random.default_rng(0), 200, 200, cells=8)
    assert abs(field.mean()) < 0.1
    assert 0.1 < field.std() < 0.6
    assert np.abs(field).max() < 2


def test_a_scene_takes_milliseconds():
    rng = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(20):
        scenes.render_scene(rng=rng, families=scenes.TRAIN_FAMILIES, height=160, width=160)
    assert (time.process_time() - start) / 20 < 0.1, "about 0.012 s on one core"
