"""Prompts and augmentation against the official program's numbers (see tests/golden/hqsam_train/README.md)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from hqsam_datasets.prepare import augment
from hqsam_datasets.prepare.augment import AugmentOptions
from hqsam_datasets.prompts import box, noise_mask, point
from tests import GOLDEN

OFFICIAL = GOLDEN / "hqsam_train"


@pytest.fixture(scope="module")
def data() -> Any:
    return np.load(OFFICIAL / "data.npz")


@pytest.fixture(scope="module")
def expected() -> Any:
    return json.loads((OFFICIAL / "expected.json").read_text())


def test_boxes_equal_the_official_ones(data: Any) -> None:
    found = [box.mask_box(mask) for mask in data["points_labels_u8"]]
    assert np.array_equal(np.array(found), data["boxes_expected"][:4])
    assert box.mask_box(np.zeros((5, 5), np.uint8)) is None


@pytest.mark.parametrize("k", [3, 10])
def test_points_equal_the_official_ones(data: Any, k: int) -> None:
    for i, mask in enumerate(data["points_labels_u8"]):
        found = point.sample_points(mask, n=k, permutation=data[f"points_perm_{i}"])
        assert np.array_equal(found, data[f"points_expected_k{k}"][i])


def test_points_lie_strictly_above_128_and_do_not_repeat() -> None:
    mask = np.full((20, 20), 128, np.uint8)
    mask[3:6, 7:12] = 129
    points = point.sample_points(mask, n=10, rng=np.random.default_rng(0))
    assert len({tuple(p) for p in points}) == 10
    assert all(mask[y, x] == 129 for x, y in points)
    assert len(point.sample_points(mask, n=99, rng=np.random.default_rng(0))) == 15


def test_points_are_uniform(expected: Any) -> None:
    reference = expected["masks_sample_points"]["hits_of_each_pixel_in_4000_draws_of_10_from_25"]
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 255
    rng = np.random.default_rng(7)
    hits = np.zeros((9, 9), int)
    for _ in range(4000):
        for x, y in point.sample_points(mask, n=10, rng=rng):
            hits[y, x] += 1
    inside = hits[2:7, 2:7]
    assert hits.sum() == inside.sum() and inside.mean() == reference["expected_mean"]
    assert abs(inside - 1600).max() < 5 * 31


def test_band_equals_the_official_one(data: Any) -> None:
    for i, mask in enumerate(data["noise_in_u8"]):
        band = noise_mask.noise_region(mask.astype(np.float32) / 255)
        official = np.unpackbits(data["noise_band"][i], axis=-1).astype(bool)
        assert np.count_nonzero(band != official) == 0


def test_noisy_mask_equals_the_official_one(data: Any) -> None:
    for i in range(3):
        found = noise_mask.noisy_mask(data["noise_in_u8"][i], noise=data["noise_fixed_f32"][i])
        official = np.unpackbits(data["noise_fixed_out"][i], axis=-1) * 255
        assert np.array_equal(found, official)


def test_noise_has_the_official_flip_rates(data: Any, expected: Any) -> None:
    reference = expected["masks_noise"]["stats"]
    rng = np.random.default_rng(3)
    for record in (reference[0], reference[6]):
        mask = data["noise_in_u8"][record["mask"]]
        clean = mask.astype(np.float32) / 255 > 0.5
        flips = np.mean(
            [(noise_mask.noisy_mask(mask, rng=rng) > 0) != clean for _ in range(50)], axis=0
        )
        distance = np.where(clean, distance_transform_edt(clean), distance_transform_edt(~clean))
        for ring in record["by_distance"]:
            inside = (distance > ring["d_from"]) & (distance <= ring["d_to"])
            assert np.count_nonzero(inside) == ring["n_pixels"]
            tolerance = 4 * ring["flip_rate_std_over_draws"] * np.sqrt(2 / 50)
            assert abs(flips[inside].mean() - ring["flip_rate_mean"]) <= tolerance


def test_jitter_equals_the_official_one(data: Any, expected: Any) -> None:
    cases = expected["large_scale_jitter"]["cases"]
    image = np.moveaxis(data["lsj_image_u8"], 0, -1)
    label = data["lsj_label_u8"][0]
    for i, case in enumerate(cases):
        scale = 0.1 + 1.9 * case["uniform_draw"]
        calls = case["randint_calls_low_high_value"]
        offsets = (calls[0][2], calls[1][2])
        jitter = augment.jitter_of(
            height=60, width=80, image_size=96, scale=scale, offsets=offsets, rng=None
        )
        margins = jitter["height"] - jitter["crop_h"], jitter["width"] - jitter["crop_w"]
        assert margins == (calls[0][1] - 1, calls[1][1] - 1)
        pixels = augment.render(
            image, flip=False, jitter=jitter, image_size=96, pad=augment.PAD_IMAGE
        )
        official = np.moveaxis(data[f"lsj_out_image_{i}"], 0, -1)
        assert abs(pixels - official).max() < 1e-2
        soft = augment.render(label, flip=False, jitter=jitter, image_size=96, pad=0)
        official_label = data[f"lsj_out_label_{i}"][0]
        assert abs(soft - official_label).max() < 1e-2
        view = {"flip": False, "jitter": jitter, "image_size": 96, "instance": 0}
        whole, mask = augment.apply_view(image=image, mask=label, view=view)
        # The official code truncates; a value within 0.01 below a whole number may be that number
        # here.
        assert np.count_nonzero(whole != official.astype(np.uint8)) <= 0.02 * whole.size
        assert abs(whole.astype(int) - official.astype(np.uint8)).max() <= 1
        near = abs(official_label - 128) < 1e-2
        assert np.array_equal((mask > 128)[~near], (official_label > 128)[~near])


def test_flip_mirrors_image_and_mask() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
    mask = rng.integers(0, 256, (12, 20), dtype=np.uint8)
    jitter = augment.jitter_of(
        height=12, width=20, image_size=20, scale=1.0, offsets=(0, 0), rng=None
    )
    view = {"flip": True, "jitter": jitter, "image_size": 20, "instance": 0}
    shown, label = augment.apply_view(image=image, mask=mask, view=view)
    assert np.array_equal(shown[:12], image[:, ::-1]) and np.array_equal(label[:12], mask[:, ::-1])
    assert (shown[12:] == 128).all() and (label[12:] == 0).all()


OPTIONS = AugmentOptions(image_size=64, mask_input_size=32)


def blob(height: int = 50, width: int = 70) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 3 : width // 2] = 255
    return mask


def test_plan_depends_on_key_view_and_seed_only() -> None:
    def plan(key: str, view: int, seed: int) -> tuple[Any, bytes]:
        entry, pictures = augment.plan_view(
            [blob()], key=key, view=view, seed=seed, options=OPTIONS
        )
        return entry, pictures["noise"].tobytes()

    first = plan("a_1", 0, 0)
    plan("b_2", 0, 0)
    assert plan("a_1", 0, 0) == first
    assert plan("a_1", 1, 0) != first and plan("a_1", 0, 1) != first and plan("b_2", 0, 0) != first


@settings(max_examples=60, deadline=None)
@given(height=st.integers(9, 200), width=st.integers(9, 200), view=st.integers(0, 1000))
def test_prompts_fit_the_view(height: int, width: int, view: int) -> None:
    mask = blob(height, width)
    image = np.repeat(mask[..., None], 3, axis=2)
    plan, pictures = augment.plan_view([mask], key="s_k", view=view, seed=5, options=OPTIONS)
    noise = pictures["noise"]
    _, shown = augment.apply_view(image=image, mask=mask, view=plan)
    assert shown.shape == (64, 64) and noise.shape == (32, 32) and set(np.unique(noise)) <= {0, 255}
    assert plan["n_foreground"] == np.count_nonzero(shown > 128)
    if plan["n_foreground"]:
        assert tuple(plan["box"]) == box.mask_box(shown)
    assert min(plan["box"]) >= 0 and max(plan["box"]) < 64
    assert len(plan["points"]) == (10 if plan["n_foreground"] >= 10 else 0)
    assert all(shown[y, x] > 128 for x, y in plan["points"])
    assert plan["prompt"] != "point" or plan["points"]


def test_thin_objects_lose_the_point_prompt_and_keep_a_box() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[150, 40:44] = 255
    options = AugmentOptions(image_size=64, mask_input_size=32, max_redraws=3)
    seen = set()
    for view in range(30):
        plan, _ = augment.plan_view([mask], key="s_k", view=view, seed=0, options=options)
        assert plan["points"] == [] and plan["prompt"] != "point"
        x0, y0, x1, y1 = plan["box"]
        assert 0 <= x0 <= x1 < 64 and 0 <= y0 <= y1 < 64
        seen.add(plan["redraws"])
    assert seen == {4}, "every view gave up after three more draws and took the whole picture"


def test_empty_crops_are_drawn_again() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[2:12, 2:12] = 255  # in a corner: large factors often cut it off
    options = AugmentOptions(image_size=64, mask_input_size=32, scale=(1.5, 2.0))
    plans = [
        augment.plan_view([mask], key="s_k", view=v, seed=0, options=options)[0] for v in range(40)
    ]
    assert any(plan["redraws"] for plan in plans)
    assert all(plan["n_foreground"] >= 10 for plan in plans)


def test_views_of_several_instances_show_each_of_them() -> None:
    left, right = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    left[5:20, 2:12], right[5:20, 25:38] = 255, 255
    plans = [
        augment.plan_view([left, right], key="k", view=v, seed=0, options=OPTIONS)[0]
        for v in range(40)
    ]
    assert {plan["instance"] for plan in plans} == {0, 1}


def test_a_kind_that_is_not_asked_for_is_not_drawn_and_a_view_without_any_prompt_is_told() -> None:
    from hqsam_base.errors import UserError

    options = AugmentOptions(image_size=64, mask_input_size=32, prompts=("point",))
    plan, pictures = augment.plan_view([blob()], key="k", view=0, seed=0, options=options)
    assert plan["prompt"] == "point" and "box" not in plan and not pictures
    thin = np.zeros((200, 200), np.uint8)
    thin[150, 40:44] = 255
    with pytest.raises(UserError, match="none of the prompts point") as caught:
        augment.plan_view([thin], key="s_k", view=0, seed=0, options=options)
    assert caught.value.key == "s_k"


def test_prompts_are_drawn_evenly() -> None:
    counts = {"box": 0, "point": 0, "noise_mask": 0}
    for view in range(600):
        plan, _ = augment.plan_view([blob()], key="k", view=view, seed=0, options=OPTIONS)
        counts[plan["prompt"]] += 1
    assert all(150 < n < 250 for n in counts.values())


@given(scale=st.floats(0.0, 0.9), seed=st.integers(0, 2**32))
def test_box_noise_is_bounded(scale: float, seed: int) -> None:
    given = (10.0, 20.0, 40.0, 60.0)
    x0, y0, x1, y1 = box.noisy_box(
        given, scale=scale, size=(64, 64), rng=np.random.default_rng(seed)
    )
    assert 0 <= x0 <= x1 <= 64 and 0 <= y0 <= y1 <= 64
    assert abs(x0 - 10.0) <= scale * 30 + 1e-9 or x0 == 0.0
    assert abs((x1 - x0) - 30) <= scale * 30 + 1e-9 or 0.0 in (x0, y0) or 64.0 in (x1, y1)
    if scale == 0.0:
        assert (x0, y0, x1, y1) == given


@pytest.mark.parametrize(
    "change",
    [
        {"scale": [2.0, 1.0]},
        {"scale": [0, 1]},
        {"views": 0},
        {"unknown": 1},
        {"prompts": ["circle"]},
    ],
)
def test_options_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        AugmentOptions(**change)
