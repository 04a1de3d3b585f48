"""The loss against the official program's numbers (tests/golden/hqsam_train/README.md says how they were made)."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam.training import loss
from tests import GOLDEN

OFFICIAL = GOLDEN / "hqsam_train"


@pytest.fixture(scope="module")
def data():
    with np.load(OFFICIAL / "data.npz") as file:
        return {k: file[k] for k in file.files if k.startswith("loss_")}


@pytest.fixture(scope="module")
def expected():
    return json.loads((OFFICIAL / "expected.json").read_text())["loss_mask"]


@pytest.fixture(scope="module")
def logits(data):
    return torch.from_numpy(data["loss_logits_f16"].astype(np.float32))[:, None]


@pytest.fixture(scope="module")
def labels(data):
    return torch.from_numpy(data["loss_targets_u8"])[:, None].float() / 255


def test_sampling_matches_the_official_values(data, logits, labels):
    points = torch.from_numpy(data["loss_points_f32"])
    np.testing.assert_allclose(
        loss.sample_points(logits, points), data["loss_point_logits"], atol=5e-4
    )
    np.testing.assert_allclose(
        loss.sample_points(labels, points), data["loss_point_labels"], atol=1e-5
    )


def test_losses_at_given_points(data, expected, logits, labels):
    points = torch.from_numpy(data["loss_points_f32"])
    found = loss.loss_at_points(logits, labels, points)
    want = expected["given_points"]
    assert found.bce.item() == pytest.approx(want["bce"], abs=1e-5)
    assert found.dice.item() == pytest.approx(want["dice"], abs=1e-5)
    assert found.total.item() == pytest.approx(want["bce"] + want["dice"], abs=2e-5)
    sampled = loss.sample_points(logits, points), loss.sample_points(labels, points)
    np.testing.assert_allclose(loss.bce_per_mask(*sampled), want["bce_per_mask"], atol=1e-5)
    np.testing.assert_allclose(loss.dice_per_mask(*sampled), want["dice_per_mask"], atol=1e-5)


def test_whole_loss_and_gradient_with_the_official_draws(
    data, expected, logits, labels, monkeypatch
):
    want, draws = expected["full"], [data["loss_full_rand_1_f32"], data["loss_full_rand_2_f32"]]
    monkeypatch.setattr(torch, "rand", lambda *_size, **_options: torch.from_numpy(draws.pop(0)))
    leaf = logits[:2].clone().requires_grad_()
    found = loss.mask_loss(leaf, labels[:2], n_points=want["n_points"], generator=torch.Generator())
    assert not draws, "the oversampled draw and the uniform one, nothing else"
    assert found.bce.item() == pytest.approx(want["loss_mask"], abs=1e-5)
    assert found.dice.item() == pytest.approx(want["loss_dice"], abs=1e-5)
    found.total.backward()
    np.testing.assert_allclose(leaf.grad[0, 0], data["loss_full_grad_mask0_f32"], atol=1e-6)
    assert leaf.grad.norm().item() == pytest.approx(want["grad_l2"], rel=1e-4)
    assert leaf.grad.sum().item() == pytest.approx(want["grad_sum"], abs=1e-5)


def test_counts_and_uncertainty_of_the_drawn_points(expected, logits):
    want = expected["full"]
    generator = torch.Generator().manual_seed(3)
    points = loss.draw_points(logits, n_points=want["n_points"], generator=generator)
    assert points.shape == (3, want["n_points"], 2)
    size = loss.sample_points(logits, points).abs()
    uncertain, uniform = size[:, : want["n_uncertain"]], size[:, want["n_uncertain"] :]
    assert uniform.shape[1] == want["n_random"]
    # 25 % of the candidates lie under the cut, so the same share of a uniform draw does
    share = (uniform <= uncertain.max(1, keepdim=True).values).float().mean(1)
    np.testing.assert_allclose(share, 0.25, atol=0.03)


def test_corner_values(expected):
    want = expected["corner"]
    low, high, zero = (torch.full((1, 50), v) for v in (-30.0, 30.0, 0.0))
    none, all_, half = torch.zeros(1, 50), torch.ones(1, 50), torch.arange(50)[None].lt(25).float()
    assert loss.dice_per_mask(low, none).item() == pytest.approx(
        want["dice_empty_target_confident_background"], abs=1e-6
    )
    assert loss.dice_per_mask(high, none).item() == pytest.approx(
        want["dice_empty_target_confident_foreground"], abs=1e-6
    )
    assert loss.dice_per_mask(high, all_).item() == pytest.approx(
        want["dice_full_target_confident_foreground"], abs=1e-6
    )
    assert loss.bce_per_mask(high, none).item() == pytest.approx(
        want["bce_wrong_confident"], abs=1e-5
    )
    assert loss.dice_per_mask(zero, half).item() == pytest.approx(
        want["dice_zero_logits_half_target"], abs=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(4, 300), size=st.integers(4, 40))
def test_same_generator_same_points_inside_the_image(seed, n, size):
    logits = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(seed))
    first, second = (
        loss.draw_points(logits, n_points=n, generator=torch.Generator().manual_seed(seed))
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert first.shape == (2, n, 2)
    assert first.min() >= 0 and first.max() < 1


def test_perfect_prediction_beats_every_shift():
    label = torch.zeros(1, 1, 64, 64)
    label[..., 20:44, 20:44] = 1

    def at(shift):
        logits = (label.roll(shift, -1) * 2 - 1) * 8
        return loss.mask_loss(
            logits, label, n_points=2000, generator=torch.Generator().manual_seed(0)
        ).total.item()

    values = [at(s) for s in range(0, 12, 3)]
    assert values == sorted(values)
    assert values[0] < 0.2 < values[1]
