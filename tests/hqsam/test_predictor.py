"""SamHQPredictor: interface and bad input. (Numbers: test_parity.)"""

import copy
import inspect
import itertools

import cv2
import numpy as np
import pytest
import torch

import hqsam
from hqsam.api.inputs import check_image
from hqsam.api.predictor import SamHQPredictor
from hqsam.api.transforms import ResizeLongestSide
from hqsam.errors import InputError
from hqsam.model.backbones import bundled_weights
from hqsam.prediction.prompt import Prompt
from hqsam_datasets.formats.image_files import MAX_PIXELS
from hqsam_metrics.masks.iou import mask_iou
from tests.hqsam.models import gap, picture


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


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_a_mask_in_place_of_logits_is_refused_by_every_entry(model, kind):
    """A 0/1 or 0/255 mask as logits silently gives a wrong mask."""
    predictor, image = SamHQPredictor(model), picture(60, 80)
    predictor.set_image(image)
    side = model.backbone.mask_size
    low = np.eye(side).astype(kind)
    tensor = torch.from_numpy(low)[None, None]
    resized = torch.from_numpy(predictor.transform.apply_image(image)).permute(2, 0, 1)
    record = {"image": resized, "original_size": (60, 80), "mask_inputs": tensor}
    for call in (
        lambda: predictor.predict(mask_input=low[None]),
        lambda: predictor.predict_torch(None, None, mask_input=tensor),
        lambda: Prompt(mask_input=low),
        lambda: model([record], multimask_output=False),
    ):
        with pytest.raises(InputError, match=r"mask_input is .*, not logits"):
            call()


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
        {"mask_input": np.zeros((1, side, side), bool)},
        {"mask_input": np.full((1, side, side), np.nan, np.float32)},
        {"box": np.array([[1, 1, 5, 5], [2, 2, 6, 6]])},
        {"box": np.array([])},
        {"box": np.array([1, np.nan, 5, 5])},
        {"box": np.array([1, 1, np.inf, 5])},
        {"box": ["a", 1, 2, 3]},
        {"point_coords": np.array([[3, 3]]), "point_labels": np.array([2])},
        {"point_coords": np.array([[3, 3]]), "point_labels": np.array([0.7])},
        {"point_coords": np.array([[3, 3]]), "point_labels": np.array([-1])},
        {"point_coords": np.array([[np.nan, 3]]), "point_labels": np.array([1])},
        {"point_coords": np.zeros((0, 2)), "point_labels": np.zeros(0)},
        {"point_coords": [[1, 2], [3]], "point_labels": [1, 1]},
    ]
    for given in bad:
        with pytest.raises(InputError):
            predictor.predict(**given)
    with pytest.raises(InputError):
        predictor.predict_torch(None, None)
    predictor.reset_image()
    with pytest.raises(RuntimeError):
        predictor.predict(box=np.array([1, 1, 5, 5]))
    with pytest.raises(InputError, match="build_sam_hq"):
        SamHQPredictor(model.sam)


def test_the_embedded_checkpoint_segments_a_plain_object():
    """An ellipse on a wavy ground, shown by a box, a point, and a box with a coarse mask."""
    image, truth = picture(120, 160) // 3, np.zeros((120, 160), np.uint8)
    cv2.ellipse(truth, (80, 60), (45, 30), 20, 0, 360, 1, -1)
    image[truth > 0] = (200, 170, 90)
    ys, xs = np.nonzero(truth)
    box = (xs.min(), ys.min(), xs.max(), ys.max())
    coarse = cv2.erode(truth, np.ones((9, 9))) > 0
    prompts = [
        Prompt(box=box),
        Prompt(points=((80, 60),), labels=(1,)),
        Prompt(box=box, mask=coarse),
    ]
    predictor = SamHQPredictor(hqsam.build_sam_hq("nano", bundled_weights("nano")))
    for found in predictor.predict_batch([image], [prompts], output="sam"):
        assert mask_iou(pred=found.mask.full(), target=truth > 0) > 0.9


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
    chunked = list(
        predictor.predict_batch(
            images, prompts, output=output, images_per_call=1, prompts_per_call=1
        )
    )
    assert [(p.image, p.prompt) for p in everything] == [(0, n) for n in range(5)] + [
        (2, 0),
        (2, 1),
    ]
    for a, b in zip(everything, chunked, strict=True):
        assert gap(b.low_res, a.low_res) < 1e-5
        assert a.mask.full().shape == images[a.image].shape[:2]
    if output != "sam":
        predictor.set_image(images[0])
        single = predictor.predict(
            box=np.array([10, 10, 100, 80]),
            multimask_output=False,
            hq_token_only=output == "hq_token",
        )
        assert gap(single[2][0], everything[0].low_res) < 1e-5
        assert (single[0][0] != everything[0].mask.full()).sum() <= 1


def test_bad_tensors_are_refused(model):
    """`predict_torch` takes what is in the network's frame already; SAM itself would make a mask of any of these."""
    predictor = SamHQPredictor(model)
    predictor.set_image(picture(60, 80))
    side, points, labels = model.backbone.mask_size, torch.tensor([[[5.0, 5]]]), torch.tensor([[1]])
    nan, wide = float("nan"), torch.tensor([[1.0, 1, 50, 40]])
    bad = {
        "neither": (None, None),
        "labels": (points, None),
        r"labels \[2\]": (points, torch.tensor([[2]])),
        "shapes": (points, torch.tensor([[1, 1]])),
        "shapes .* and": (points[0], labels[0]),
        "lies outside": (torch.tensor([[[5.0, 110]]]), labels),
        "not finite": (torch.tensor([[[5.0, nan]]]), labels),
        "as many": (points, labels, wide.repeat(2, 1)),
        "reversed": (None, None, torch.tensor([[50.0, 1, 1, 40]])),
        "reversed or not finite": (None, None, torch.tensor([[1.0, 1, nan, 40]])),
        "box lies outside": (None, None, torch.tensor([[1.0, 110, 50, 120]])),
        "give .B, 4.": (None, None, wide[0]),
        "mask_input has the shape": (None, None, wide, torch.zeros(1, side, side)),
        "is a ndarray": (None, None, wide.numpy()),
        "without any point": (torch.tensor([[[5.0, 5]], [[9, 9]]]), torch.tensor([[1], [-1]])),
        "object without any": (torch.zeros(1, 0, 2), torch.zeros(1, 0)),
        "not logits": (None, None, wide, torch.ones(1, 1, side, side, dtype=torch.bool)),
        "mask_input has values": (None, None, wide, torch.full((1, 1, side, side), nan)),
    }
    for message, given in bad.items():
        with pytest.raises(InputError, match=message):
            predictor.predict_torch(*given)
    masks, iou, low = predictor.predict_torch(None, None, wide[:0])  # a detector that found nothing
    assert (masks.shape, masks.dtype, iou.shape) == ((0, 1, 60, 80), torch.bool, (0, 1))
    assert low.shape == (0, 1, side, side)
    doubles = [
        torch.zeros(1, 1, side, side, dtype=kind)
        for kind in (torch.float64, torch.float16, torch.float32)
    ]
    logits = [predictor.predict_torch(None, None, wide, one)[2] for one in doubles]
    assert torch.equal(logits[0], logits[2]) and torch.equal(logits[1], logits[2])
    padded = predictor.predict_torch(torch.tensor([[[5.0, 5], [0, 0]]]), torch.tensor([[1, -1]]))
    assert padded[0].shape == (1, 1, 60, 80)


@torch.no_grad()
def test_an_image_resized_by_the_user_must_fit(model):
    """The long side, the aspect and the range of values are checked: each mistake would shift or spoil the mask."""
    predictor = SamHQPredictor(model)
    image = picture(60, 80)
    small = torch.from_numpy(predictor.transform.apply_image(image)).permute(2, 0, 1)[None]
    for transformed, size, message in (
        (small, (80, 60), "does not become"),
        (small, (0, 80), "does not become"),
        (small.float() / 255, (60, 80), "from 0 to 0.99"),
        (small.float() - 500, (60, 80), "values from"),
        (small.float() * torch.nan, (60, 80), "not finite"),
        (small[0], (60, 80), "shape"),
        (small.long() + 500, (60, 80), "values from"),
        (small.numpy(), (60, 80), "is a ndarray"),
    ):
        with pytest.raises(InputError, match=message):
            predictor.set_torch_image(transformed, size)
    assert not predictor.is_image_set
    predictor.set_torch_image(small, (60, 80))
    embedding = predictor.get_image_embedding()
    predictor.set_torch_image(
        predictor.transform.apply_image_torch(
            torch.from_numpy(image).permute(2, 0, 1)[None].float()
        ),
        (60, 80),
    )
    assert gap(predictor.get_image_embedding(), embedding) < 0.1
    predictor.set_torch_image(torch.zeros_like(small), (60, 80))  # black is a picture


def test_odd_but_sensible_prompts_are_taken(nano):
    """A box that sticks out or has no width, labels of any number type, lists instead of arrays: as SAM takes them."""
    predictor = SamHQPredictor(nano)
    predictor.set_image(picture(60, 80))
    for given in (
        {"box": np.array([-5, -5, 90, 70])},
        {"box": np.array([20, 20, 20, 40])},
        {"box": [[3, 4, 50, 40]]},
        {"point_coords": [[3, 4]], "point_labels": [True]},
        {"point_coords": np.array([[80, 60]]), "point_labels": np.array([1.0])},
    ):
        masks, iou, _ = predictor.predict(**given)
        assert masks.shape == (1, 60, 80)
        assert np.isfinite(iou).all()


def test_a_prompt_may_be_made_of_arrays():
    """As detectors and click tools give them; equal to the tuples that the class keeps."""
    made = Prompt(
        box=np.array([1, 2, 30, 40]),
        points=np.array([[5, 6], [7, 8]]),
        labels=np.array([1, 0]),
        mask=[[True, False]],
    )
    assert (made.box, made.points, made.labels) == (
        (1.0, 2.0, 30.0, 40.0),
        ((5.0, 6.0), (7.0, 8.0)),
        (1, 0),
    )
    assert made.mask.dtype == bool
    for bad, message in (
        ({"points": ((1, 2, 3),), "labels": (1,)}, "not numbers"),
        ({"points": ((1, 2),), "labels": np.array([0.5])}, r"labels \[0.5\]"),
        ({"points": np.array([[1, 2]]), "labels": ()}, "1 points and 0 labels"),
        ({"box": (1, 2, 3)}, "four finite"),
        ({"box": (1, 2, 3, None)}, "not numbers"),
        ({"box": np.zeros((2, 4))}, "not numbers"),
        ({"mask": np.ones((3, 3), np.uint8)}, "uint8"),
        ({"mask": np.ones((3, 3, 1), bool)}, r"not bool \[H, W\]"),
        ({"mask": np.ones((3, 3), bool), "mask_input": np.zeros((3, 3))}, "both a mask"),
    ):
        with pytest.raises(InputError, match=message):
            Prompt(**bad)


def test_an_unknown_option_of_a_batch_is_refused(nano):
    """It would otherwise silently mean the default, and the masks would be another system's."""
    predictor, image, prompt = SamHQPredictor(nano), picture(30, 40), Prompt(box=(1, 1, 20, 20))
    for options, message in (
        ({"output": "hq"}, "hq_sum, hq_token, sam"),
        ({"mask_encoding": "binary"}, "mask_encoding"),
        ({"resize": "squash"}, "resize"),
        ({"images_per_call": 0}, "images_per_call"),
        ({"prompts_per_call": 2.5}, "prompts_per_call"),
    ):
        with pytest.raises(InputError, match=message):
            list(predictor.predict_batch([image], [[prompt]], **options))
    with pytest.raises(InputError, match="image 0 are not a list"):
        list(predictor.predict_batch([image], [prompt]))
    with pytest.raises(InputError, match="image 0 are not a list"):
        list(predictor.predict_batch([image], [[(1, 1, 20, 20)]]))


@torch.no_grad()
def test_the_model_is_called_like_sam(nano):
    """Several images end to end, as in segment_anything's notebook; equal to the predictor, image by image."""
    predictor, images = SamHQPredictor(nano), [picture(97, 140, 4), picture(128, 60, 5)]
    resize, boxes = (
        ResizeLongestSide(nano.image_encoder.img_size),
        torch.tensor([[10, 5, 60, 60], [30, 10, 120, 90]]),
    )
    points = resize.apply_coords_torch(torch.tensor([[[30, 60]]]), (128, 60))
    given = [
        {"boxes": resize.apply_boxes_torch(boxes, (97, 140))},
        {"point_coords": points, "point_labels": torch.ones(1, 1)},
    ]
    batch = [
        {
            "image": torch.as_tensor(resize.apply_image(image)).permute(2, 0, 1),
            "original_size": image.shape[:2],
            **prompts,
        }
        for image, prompts in zip(images, given, strict=True)
    ]
    for multimask, only in itertools.product((False, True), (False, True)):
        found = nano(batch, multimask_output=multimask, hq_token_only=only)
        for image, prompts, one in zip(images, given, found, strict=True):
            predictor.set_image(image)
            prompts = {"point_coords": None, "point_labels": None, **prompts}
            masks, iou, low = predictor.predict_torch(
                **prompts, multimask_output=multimask, hq_token_only=only
            )
            assert gap(one["low_res_logits"], low) < 1e-5
            assert gap(one["iou_predictions"], iou) < 1e-5
            assert one["masks"].dtype == torch.bool
            assert (one["masks"] != masks).sum() <= 1
    assert (nano.mask_threshold, nano.image_format) == (0.0, "RGB")
    with pytest.raises(InputError, match="neither box"):
        nano([{"image": batch[0]["image"], "original_size": (97, 140)}], multimask_output=False)
    with pytest.raises(InputError, match="does not become"):
        nano([batch[0] | {"original_size": (140, 97)}], multimask_output=False)


def test_low_precision_gives_what_float32_gives(nano):
    """As scripts run it on a GPU: the calls inside an autocast region."""
    image, box = picture(90, 120), np.array([10, 10, 80, 70])
    predictor = SamHQPredictor(nano)
    predictor.set_image(image)
    wanted, _, logits = predictor.predict(box=box, multimask_output=False)
    with torch.autocast("cpu", torch.bfloat16):
        predictor.set_image(image)
        found = predictor.predict(box=box, multimask_output=False, return_logits=True)
    assert [part.dtype for part in found] == [np.float32] * 3
    assert ((found[0] > 0) == wanted).mean() > 0.98
    assert np.abs(found[2] - logits).mean() < 0.1 * np.abs(logits).mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_moved_to_another_type_predicts_what_float32_does(dtype):
    """All kinds of prompt by every entry, from the embedded weights, whose masks are sharp."""
    torch.manual_seed(0)
    model = hqsam.build_sam_hq("nano", checkpoint=bundled_weights("nano"))
    image, box = np.full((100, 160, 3), 40, np.uint8), np.array([40, 25, 120, 75])
    image[25:75, 40:120] = (200, 60, 60)
    exact = SamHQPredictor(model)
    exact.set_image(image)
    _, _, low = exact.predict(box=box, multimask_output=False)
    given = [
        {"box": box},
        {"point_coords": [[80, 50]], "point_labels": [1]},
        {"box": box, "mask_input": low},
    ]
    wanted = [exact.predict(**prompt, multimask_output=False)[0][0] for prompt in given]
    predictor = SamHQPredictor(copy.deepcopy(model).to(dtype))
    predictor.set_image(image)
    prompts = [
        Prompt(box=tuple(box)),
        Prompt(points=((80, 50),), labels=(1,)),
        Prompt(box=tuple(box), mask_input=low[0]),
    ]
    batch = predictor.predict_batch([image], [prompts])
    for prompt, mask, other in zip(given, wanted, batch, strict=True):
        found, iou, logits = predictor.predict(**prompt, multimask_output=False)
        assert mask_iou(pred=found[0], target=mask) > 0.97
        assert mask_iou(pred=other.mask.full(), target=mask) > 0.97
        assert (found.dtype, iou.dtype, logits.dtype) == (bool, np.float32, np.float32)
    boxes = predictor.transform.apply_boxes_torch(torch.from_numpy(box), (100, 160)).to(dtype)
    masks = predictor.predict_torch(None, None, boxes, multimask_output=False, return_logits=True)[
        0
    ]
    assert mask_iou(pred=(masks[0, 0] > 0).numpy(), target=wanted[0]) > 0.9
    resized = torch.from_numpy(predictor.transform.apply_image(image)).permute(2, 0, 1)
    record = {"image": resized, "original_size": (100, 160), "boxes": boxes}
    assert (
        mask_iou(pred=predictor.model([record], False)[0]["masks"][0, 0].numpy(), target=wanted[0])
        > 0.9
    )


def test_a_half_moved_or_overflowing_model_is_refused_before_a_prompt(nano):
    predictor, image = SamHQPredictor(copy.deepcopy(nano)), picture(40, 50)
    predictor.model.head.half()
    with pytest.raises(InputError, match=r"the head torch\.float16"):
        predictor.set_image(image)
    predictor.model.half()
    with torch.no_grad():
        predictor.model.sam.image_encoder.neck[0].weight.fill_(60_000)
    for call in (
        lambda: predictor.set_image(image),
        lambda: list(predictor.predict_batch([image], [[]])),
    ):
        with pytest.raises(InputError, match="overflows") as caught:
            call()
        assert "bfloat16" in str(caught.value) and "autocast" in str(caught.value)
    predictor.model.float()
    predictor.model.sam.image_encoder.to(torch.bfloat16)  # the encoder alone, where the memory is
    with torch.no_grad():
        predictor.model.sam.image_encoder.neck[0].weight.fill_(0.01)
    predictor.set_image(image)
    assert predictor.predict(box=np.array([5, 5, 30, 30]))[2].dtype == np.float32


def test_batch_names_the_bad_image(model):
    predictor = SamHQPredictor(model)
    images = [picture(20, 20), picture(30, 30)]
    with pytest.raises(InputError, match="image 1"):
        list(
            predictor.predict_batch(
                images, [[Prompt(box=(1, 1, 5, 5))], [Prompt(box=(50, 50, 60, 60))]]
            )
        )
    with pytest.raises(InputError, match="image 1"):
        list(predictor.predict_batch([images[0], np.zeros((3, 3))], [[], []]))
    with pytest.raises(InputError, match="2 images and 1"):
        list(predictor.predict_batch(images, [[]]))
