"""SamHQPredictor: interface and bad input. (Numbers: test_parity.)"""

import inspect

import numpy as np
import pytest
from hqsam_datasets.images import MAX_PIXELS
from model_testing import gap, picture

import hqsam
from hqsam.errors import InputError
from hqsam.predictor import SamHQPredictor, check_image
from hqsam.prompts import Prompt


def test_public_names_are_lazy():
    assert hqsam.SamHQPredictor is SamHQPredictor
    assert callable(hqsam.build_sam_hq)
    with pytest.raises(AttributeError):
        _ = hqsam.no_such_name


def test_interface_is_sam_predictors():
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    from segment_anything import SamPredictor

    for name, member in inspect.getmembers(SamPredictor, inspect.isfunction):
        theirs = [p for p in inspect.signature(member).parameters if p != "sam_model"]
        ours = list(inspect.signature(getattr(SamHQPredictor, name)).parameters)
        assert ours[: len(theirs)] == theirs or name == "__init__", name


def test_grey_and_rgba_images_are_what_they_look_like(model):
    grey = picture(50, 70)[:, :, 0]
    alpha = np.dstack([picture(50, 70), np.full((50, 70), 9, np.uint8)])
    assert np.array_equal(check_image(grey), np.dstack([grey] * 3))
    assert np.array_equal(check_image(grey[:, :, None]), np.dstack([grey] * 3))
    assert np.array_equal(check_image(alpha), picture(50, 70))
    predictor = SamHQPredictor(model)
    predictor.set_image(alpha)
    assert predictor.predict(box=np.array([3, 3, 40, 40]))[0].shape == (1, 50, 70)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([[1, 2]], "list"),
        (np.zeros((5, 5, 3), np.uint16), "uint16"),
        (np.zeros((5, 5, 3), np.float32), "float32"),
        (np.zeros((0, 5, 3), np.uint8), "empty"),
        (np.zeros((5, 5, 2), np.uint8), "shape"),
        (np.zeros((1, 5, 5, 3), np.uint8), "shape"),
        (np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (40_000, 40_000, 3)), f"{MAX_PIXELS:,}"),
    ],
)
def test_bad_images_are_refused(model, image, message):
    predictor = SamHQPredictor(model)
    with pytest.raises(InputError, match=message):
        predictor.set_image(image)
    assert not predictor.is_image_set


def test_bad_calls_are_refused(model):
    predictor = SamHQPredictor(model)
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(box=np.array([1, 1, 5, 5]))
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.get_image_embedding()
    with pytest.raises(InputError, match="RGB"):
        predictor.set_image(picture(9, 9), "HSV")
    with pytest.raises(InputError, match="shape"):
        predictor.set_torch_image(predictor.model.dense_pe_1CHW, (9, 9))
    predictor.set_image(picture(60, 80))
    side = predictor.model.backbone.mask_size
    bad = [
        {},
        {"point_coords": np.array([[3, 3]])},
        {"point_labels": np.array([1])},
        {"point_coords": np.array([3, 3]), "point_labels": np.array([1])},
        {"point_coords": np.array([[3, 3]]), "point_labels": np.array([1, 1])},
        {"point_coords": np.array([[300, 3]]), "point_labels": np.array([1])},
        {"box": np.array([50, 3, 10, 9])},
        {"box": np.array([500, 3, 510, 9])},
        {"box": np.array([1, 2, 3])},
        {"mask_input": np.zeros((side, side), np.float32)},
        {"mask_input": np.zeros((1, side // 2, side // 2), np.float32)},
    ]
    for given in bad:
        with pytest.raises(InputError):
            predictor.predict(**given)
    with pytest.raises(InputError):
        predictor.predict_torch(None, None)
    predictor.reset_image()
    with pytest.raises(RuntimeError):
        predictor.predict(box=np.array([1, 1, 5, 5]))


@pytest.mark.parametrize("output", ["hq_sum", "hq_token", "sam"])
def test_batch_equals_one_by_one(nano, output):
    """Several images of different sizes, prompts of all kinds mixed, in any chunking."""
    images = [picture(90, 130, 1), picture(200, 60, 2), picture(64, 64, 3)]
    mask = np.zeros((90, 130), bool)
    mask[20:70, 30:100] = True
    prompts = [
        [
            Prompt(box=(10, 10, 100, 80)),
            Prompt(points=((50, 40),), labels=(1,)),
            Prompt(mask=mask),
            Prompt(box=(5, 5, 90, 60), points=((50, 40), (3, 3)), labels=(1, 0)),
            Prompt(box=(20, 20, 60, 60)),
        ],
        [],
        [Prompt(points=((10, 10), (50, 50)), labels=(1, 1)), Prompt(box=(0, 0, 63, 63))],
    ]
    predictor = SamHQPredictor(nano)
    everything = list(predictor.predict_batch(images, prompts, output=output))
    chunked = list(predictor.predict_batch(images, prompts, output=output, images_per_call=1, prompts_per_call=1))
    assert [(p.image, p.prompt) for p in everything] == [(0, n) for n in range(5)] + [(2, 0), (2, 1)]
    for a, b in zip(everything, chunked, strict=True):
        assert gap(b.low_res, a.low_res) < 1e-5
        assert a.mask.full().shape == images[a.image].shape[:2]
    if output != "sam":
        predictor.set_image(images[0])
        single = predictor.predict(
            box=np.array([10, 10, 100, 80]), multimask_output=False, hq_token_only=output == "hq_token"
        )
        assert gap(single[2][0], everything[0].low_res) < 1e-5
        assert (single[0][0] != everything[0].mask.full()).sum() <= 1


def test_batch_names_the_bad_image(model):
    predictor = SamHQPredictor(model)
    images = [picture(20, 20), picture(30, 30)]
    with pytest.raises(InputError, match="image 1"):
        list(predictor.predict_batch(images, [[Prompt(box=(1, 1, 5, 5))], [Prompt(box=(50, 50, 60, 60))]]))
    with pytest.raises(InputError, match="image 1"):
        list(predictor.predict_batch([images[0], np.zeros((3, 3))], [[], []]))
    with pytest.raises(InputError, match="2 images and 1"):
        list(predictor.predict_batch(images, [[]]))
