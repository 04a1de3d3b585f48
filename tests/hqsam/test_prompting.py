"""Geometry: the input square, prompts in it, and masks back at the image's size."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam.api.transforms import ResizeLongestSide
from hqsam.errors import InputError
from hqsam.model.preprocess import Frame
from hqsam.model.prompt_inputs import group
from hqsam.prediction.postprocess import MaskPatch, mask_patch
from hqsam.prediction.prompt import Prompt
from hqsam_base import rle
from tests.hqsam.models import picture

sides = st.integers(1, 400)


def _upstream():
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    from segment_anything.utils.transforms import ResizeLongestSide as Theirs

    return Theirs


@pytest.mark.parametrize("size", [(37, 90), (1200, 800), (256, 256), (31, 1000), (512, 511)])
def test_preprocessing_is_bit_for_bit_sam_predictors(model, size):
    """Pixels into the encoder, coordinates into the prompt encoder."""
    image = picture(*size)
    theirs, ours = _upstream()(128), ResizeLongestSide(128)
    expected = theirs.apply_image(image)
    assert np.array_equal(ours.apply_image(image), expected)
    tensor = torch.as_tensor(expected).permute(2, 0, 1)[None]
    frame = Frame(*size, 128)
    assert torch.equal(model.preprocess(frame.image(image)[None]), model.sam.preprocess(tensor))
    boxes = np.random.default_rng(0).uniform(-5, 500, (50, 4))
    assert np.array_equal(ours.apply_boxes(boxes, size), theirs.apply_boxes(boxes, size))
    assert np.array_equal(frame.boxes(boxes), theirs.apply_boxes(boxes, size))
    assert np.array_equal(frame.points(boxes[:, :2]), theirs.apply_coords(boxes[:, :2], size))
    as_tensor = torch.from_numpy(boxes)
    assert torch.equal(
        ours.apply_boxes_torch(as_tensor, size), theirs.apply_boxes_torch(as_tensor, size)
    )
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    assert ours.apply_image_torch(pixels).shape[-2:] == expected.shape[:2]


@given(sides, sides, st.sampled_from([64, 256, 1024]))
def test_resized_shape_is_sams(height, width, size):
    expected = _upstream().get_preprocess_shape(height, width, size)
    assert Frame(height, width, size).resized == tuple(max(1, n) for n in expected)


def test_stretch_is_the_official_evaluation_script():
    """Bilinear without anti-aliasing to S x S, truncated to uint8; boxes are pixel indices of the resized mask."""
    image = picture(301, 200)
    frame = Frame(301, 200, 128, "stretch")
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = (
        torch.nn.functional.interpolate(pixels, (128, 128), mode="bilinear")
        .numpy()
        .astype(np.uint8)
    )
    assert np.array_equal(frame.image(image)[None].numpy(), expected)


@given(st.integers(200, 900), st.integers(200, 900), st.data())
@settings(max_examples=40, deadline=None)
def test_stretched_box_is_the_resized_masks_box(height, width, data):
    """The script finds the box on the resized ground truth; scaling the full-size box comes within a pixel."""
    y0, x0 = data.draw(st.integers(0, height - 100)), data.draw(st.integers(0, width - 100))
    y1, x1 = data.draw(st.integers(y0 + 50, height - 1)), data.draw(st.integers(x0 + 50, width - 1))
    mask = np.zeros((height, width), np.float32)
    mask[y0 : y1 + 1, x0 : x1 + 1] = 255
    small = (
        torch.nn.functional.interpolate(
            torch.from_numpy(mask)[None, None], (256, 256), mode="bilinear"
        )[0, 0]
        > 128
    )
    ys, xs = np.nonzero(small.numpy())
    box = Frame(height, width, 256, "stretch").boxes(np.array([x0, y0, x1, y1], np.float64))
    assert np.abs(box - [xs.min(), ys.min(), xs.max(), ys.max()]).max() <= 1


def _torch_masks(logits, frame):
    """What SAM's and HQ-SAM's own code do, with full-size floats."""
    values = torch.from_numpy(logits)[None, None]
    if frame.resize == "longest_side":
        values = torch.nn.functional.interpolate(
            values, (frame.size, frame.size), mode="bilinear", align_corners=False
        )
        values = values[..., : frame.resized[0], : frame.resized[1]]
    full = torch.nn.functional.interpolate(
        values, (frame.height, frame.width), mode="bilinear", align_corners=False
    )
    return full[0, 0].numpy()


@given(
    sides,
    sides,
    st.sampled_from(["stretch", "longest_side"]),
    st.integers(0, 10**6),
    st.floats(-1.5, 1.5),
)
@settings(max_examples=120, deadline=None)
def test_masks_equal_full_size_interpolation(height, width, resize, seed, bias):
    frame = Frame(height, width, 128, resize)
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (32, 32)).astype(np.float32)
    logits = (cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.5, 3)) + np.float32(bias * 0.3)).astype(
        np.float32
    )
    patch = mask_patch(logits, frame)
    values = _torch_masks(logits, frame)
    differs = patch.full() != (values > 0)
    assert np.abs(values[differs]).max(initial=0) < 1e-5
    assert patch.area == np.count_nonzero(patch.full())
    assert patch.rle() == rle.encode(patch.full())


@pytest.mark.parametrize("value", [-1.0, 1.0, 0.0])
def test_empty_and_full_masks(value):
    patch = mask_patch(np.full((32, 32), value, np.float32), Frame(50, 77, 128))
    assert patch.area == (50 * 77 if value > 0 else 0)
    assert patch.rle() == rle.encode(np.full((50, 77), value > 0))


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_runs_of_any_rectangle(height, width, data):
    """Runs that touch top and bottom must join across columns."""
    h, w = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    y0, x0 = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
    bits = data.draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))
    patch = MaskPatch(np.array(bits, bool).reshape(w, h), x0, y0, height, width)
    assert patch.rle() == rle.encode(patch.full())
    assert sum(patch.counts()) == height * width


def test_mask_prompt_covers_the_same_place():
    mask = np.zeros((600, 400), bool)
    mask[150:450, 100:300] = True
    frame = Frame(600, 400, 256)  # resized to 256 x 171: cells beyond column 42.75 are padding
    binary = frame.mask_prompt(mask, side=64, encoding="binary_255")
    assert set(np.unique(binary)) == {0.0, 255.0}
    ys, xs = np.nonzero(binary)
    assert (ys.min(), ys.max() + 1) == (16, 48)
    assert abs(xs.min() - 100 / 600 * 64) <= 1
    assert abs(xs.max() + 1 - 300 / 600 * 64) <= 1
    logits = frame.mask_prompt(mask, side=64, encoding="logits")
    assert logits.max() == pytest.approx(np.log(999), rel=1e-4)
    assert logits.min() == pytest.approx(-logits.max(), rel=1e-4)
    assert ((logits > 0) == (binary > 0)).mean() > 0.99
    upscaled = _torch_masks(logits, frame) > 0
    assert np.logical_and(upscaled, mask).sum() / np.logical_or(upscaled, mask).sum() > 0.97


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, "neither box"),
        ({"box": (5, 5, 1, 9)}, "reversed"),
        ({"box": (5, 5, float("nan"), 9)}, "finite"),
        ({"box": (1, 2, 3)}, "four"),
        ({"points": ((1, 2),)}, "1 points and 0 labels"),
        ({"points": ((1, 2),), "labels": (3,)}, "labels"),
        ({"points": ((1, float("inf")),), "labels": (1,)}, "finite"),
        ({"mask": np.ones((2, 2), bool), "mask_input": np.ones((4, 4), np.float32)}, "both"),
    ],
)
def test_senseless_prompts_are_refused(given_, message):
    with pytest.raises(InputError, match=message) as error:
        Prompt(**given_)
    assert isinstance(error.value, ValueError)


def test_prompts_beside_the_image_are_refused():
    frame = Frame(40, 60, 64)
    Prompt(box=(-5, -5, 70, 50)).check_inside(frame)
    Prompt(box=(10, 10, 10, 20)).check_inside(frame)  # one pixel wide
    for prompt in (
        Prompt(box=(70, 5, 80, 9)),
        Prompt(box=(-9, -9, -1, -1)),
        Prompt(points=((61, 3),), labels=(1,)),
        Prompt(mask=np.ones((60, 40), bool)),
    ):
        with pytest.raises(InputError, match="60 x 40"):
            prompt.check_inside(frame)


def test_prompts_are_grouped_by_what_can_be_embedded_together():
    box, point = Prompt(box=(1, 1, 2, 2)), Prompt(points=((1, 1),), labels=(1,))
    two = Prompt(points=((1, 1), (2, 2)), labels=(1, 0))
    assert group([box, point, two, box, point]) == [[1, 4], [2], [0, 3]]
