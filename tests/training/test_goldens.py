"""The pieces of tests/golden/hqsam_train that neither the loss nor the prompts cover: validation and the flip."""

import json
import math

import numpy as np
import pytest
import torch

from hqsam.training.validate import compare
from hqsam_datasets.prepare import augment
from tests import GOLDEN

OFFICIAL = GOLDEN / "hqsam_train"
EXPECTED = json.loads((OFFICIAL / "expected.json").read_text())


@pytest.fixture(scope="module")
def data():
    with np.load(OFFICIAL / "data.npz") as file:
        return {k: file[k] for k in file.files if k.startswith("eval_")}


def logits(data, number):
    return torch.from_numpy(data[f"eval_logits_{number}_f16"].astype(np.float32))[None]


@pytest.mark.parametrize("number", range(6))
def test_validation_compares_at_the_labels_own_size(data, number):
    case, truth = EXPECTED["eval_resolution"]["cases"][number], data[f"eval_label_{number}"]
    assert list(truth.shape) == case["size"]
    assert case["n_upsampled_logits_closer_to_0_than_1e-5"] == 0, (
        "so the counts are the same, and the IoUs but for float32"
    )
    assert compare(logits(data, number), truth) == pytest.approx(
        (case["iou"], case["boundary_iou"]), abs=1e-6
    )


def test_validation_takes_the_mean_over_images(data):
    want = EXPECTED["eval_resolution"]["batch_of_logits_0_and_5_at_384x512"]
    rows = [
        compare(logits(data, n), truth)
        for n, truth in zip((0, 5), data["eval_batch_labels"], strict=True)
    ]
    assert np.mean(rows, axis=0) == pytest.approx([want["iou"], want["boundary_iou"]], abs=1e-6)


def test_nothing_against_nothing_is_undefined():
    assert EXPECTED["eval_resolution"]["empty_gt_and_empty_pred"] == {
        "iou": None,
        "boundary_iou": None,
    }
    found = compare(torch.full((1, 64, 64), -1.0), np.zeros((90, 80), bool))
    assert all(math.isnan(value) for value in found)


class _First(np.random.Generator):
    """A generator whose first uniform number is given."""

    first: float | None = None

    def random(self, *args, **kwargs):
        value, self.first = self.first, None
        return super().random(*args, **kwargs) if value is None else value


@pytest.mark.parametrize(("draw", "outcome"), EXPECTED["random_hflip"].items())
def test_the_picture_is_flipped_from_one_half_on(monkeypatch, draw, outcome):
    def drawn(seed):
        made = _First(np.random.PCG64(seed))
        made.first = float(draw)
        return made

    monkeypatch.setattr(np.random, "default_rng", drawn)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:50, 10:30] = 255
    options = augment.AugmentOptions(image_size=64, mask_input_size=32)
    plan, _ = augment.plan_view([mask], key="k", view=0, seed=0, options=options)
    assert plan["flip"] == (outcome == "flipped")
