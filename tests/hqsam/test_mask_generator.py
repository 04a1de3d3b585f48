"""SamHQAutomaticMaskGenerator against the authors' generator, and its suppression against the definition."""

import inspect
import json

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import hqsam
from hqsam.api.mask_generator import SamHQAutomaticMaskGenerator, _patch, _rle, _stability
from hqsam.api.nms import nms
from hqsam.errors import InputError
from hqsam.model._torchvision import ensure_torchvision
from hqsam.model.sam_api import amg
from hqsam_base import rle
from tests.hqsam.models import authors_model, authors_package, picture

# Low thresholds: the masks of a random head are not good, and they have to differ.
COMMON = {
    "points_per_side": 5,
    "points_per_batch": 7,
    "pred_iou_thresh": 0.3,
    "stability_score_thresh": 0.5,
}
SETTINGS = {
    "one pass": {},
    "everything": {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 0.95},
    "crops": {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    "small regions": {"min_mask_region_area": 40},
    "grids": {
        "pred_iou_thresh": 0.0,
        "points_per_side": None,
        "point_grids": [np.random.default_rng(0).random((9, 2))],
    },
    "nothing": {"pred_iou_thresh": 1.0},
    "coco": {"output_mode": "coco_rle"},
    "runs": {"output_mode": "uncompressed_rle"},
}


@pytest.fixture(scope="module")
def reference(nano):
    """The authors' class; where torchvision's compiled suppression is missing, it gets ours (tested below)."""
    package = authors_package()
    module = inspect.getmodule(package.SamAutomaticMaskGenerator)
    model = authors_model(nano)
    with pytest.MonkeyPatch.context() as patch:
        if ensure_torchvision():
            patch.setattr(
                module,
                "batched_nms",
                lambda boxes, scores, groups, iou_threshold: nms(boxes, scores, iou_threshold),
            )
        yield lambda **options: package.SamAutomaticMaskGenerator(model, **options)


@pytest.mark.parametrize("setting", SETTINGS)
def test_records_are_the_authors(nano, reference, setting):
    options = COMMON | SETTINGS[setting]
    image = picture(70, 110, seed=2)
    found = SamHQAutomaticMaskGenerator(nano, **options).generate(image)
    expected = reference(**options).generate(image)
    assert len(found) == len(expected)
    assert len(found) > 1 or setting == "nothing"
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ("bbox", "point_coords", "crop_box", "area"):
            assert ours[key] == theirs[key], key
        for key in ("predicted_iou", "stability_score"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-5)
        assert type(ours["segmentation"]) is type(theirs["segmentation"])
        assert np.array_equal(ours["segmentation"], theirs["segmentation"])


def test_modes_and_batches_give_the_same_masks(nano):
    """The same masks in every output mode and for every batch size; single mask and HQ token alone differ."""
    image = picture(70, 110, seed=2)
    whole = SamHQAutomaticMaskGenerator(nano, **COMMON)
    masks = [record["segmentation"] for record in whole.generate(image)]
    coded = SamHQAutomaticMaskGenerator(
        nano, **COMMON | {"output_mode": "coco_rle", "points_per_batch": 64}
    )
    counts = [record["segmentation"]["counts"] for record in coded.generate(image)]
    assert all(
        np.array_equal(rle.decode(c, height=70, width=110), m)
        for c, m in zip(counts, masks, strict=True)
    )
    for other in (
        whole.generate(image, multimask_output=False),
        whole.generate(image, hq_token_only=True),
    ):
        assert [r["area"] for r in other] != [int(m.sum()) for m in masks]


def test_interface_is_sams():
    ensure_torchvision()
    from segment_anything import SamAutomaticMaskGenerator

    theirs = inspect.signature(SamAutomaticMaskGenerator).parameters
    ours = inspect.signature(SamHQAutomaticMaskGenerator).parameters
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]
    assert hqsam.SamHQAutomaticMaskGenerator is SamHQAutomaticMaskGenerator


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (5, 2)])
def test_crops_of_an_image_of_a_few_pixels(nano, size):
    options = {**COMMON, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "crop_n_layers": 2}
    for record in SamHQAutomaticMaskGenerator(nano, **options).generate(picture(*size)):
        assert record["segmentation"].shape == size
        assert record["crop_box"][2] > 0 and record["crop_box"][3] > 0


class _NoFloat64OnDevice(TorchFunctionMode):
    """What Apple's GPUs do, with the CPU in the device's place: 64-bit floats cannot be made there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        to = func is Tensor.to and any(isinstance(a, torch.device) for a in args)
        if (to or (kwargs or {}).get("device") is not None) and out.dtype == torch.float64:
            raise TypeError(f"no float64 on this device ({func.__name__})")
        return out


def test_records_are_finite_whole_and_plain_on_a_device_without_float64(nano):
    """Every mask is kept by the thresholds: also those without a pixel at the upper or at both thresholds."""
    everything = {
        "pred_iou_thresh": 0,
        "stability_score_thresh": 0,
        "box_nms_thresh": 1.0,
        "output_mode": "coco_rle",
    }
    image = np.full((60, 90, 3), 30, np.uint8)
    image[20:40, 30:60] = (220, 60, 60)
    generator = SamHQAutomaticMaskGenerator(nano, points_per_side=6, crop_n_layers=1, **everything)
    with _NoFloat64OnDevice():
        records = generator.generate(image)
    assert len(json.loads(json.dumps(records, allow_nan=False))) == len(records) > 10
    assert all(record["area"] > 0 and 0 <= record["stability_score"] <= 1 for record in records)
    logits = torch.tensor([-5.0, 0.5, 5.0])[:, None, None].expand(
        3, 2, 40_000
    )  # 16 bits end at 32,767 pixels of a row
    assert _stability(logits, 0.0, 1.0).tolist() == [0.0, 0.0, 1.0]


def test_masks_of_a_crop_are_coded_in_the_frame_of_the_image():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.4, 1.0):
        whole = np.zeros((40, 50), bool)
        whole[10:30, 5:45] = part = rng.random((20, 40)) < share
        coded = _rle(_patch(part, [5, 10], (40, 50)))
        assert np.array_equal(amg().rle_to_mask(coded), whole)
        assert coded == amg().mask_to_rle_pytorch(torch.from_numpy(whole)[None])[0]


def test_a_deep_layer_of_crops_has_a_point_left(nano):
    generator = SamHQAutomaticMaskGenerator(
        nano, points_per_side=2, crop_n_layers=2, crop_n_points_downscale_factor=2
    )
    assert [len(grid) for grid in generator.point_grids] == [4, 1, 1]


def test_bad_arguments_are_refused(nano):
    for options, message in (
        ({"points_per_side": None}, "exactly one"),
        ({"point_grids": [np.zeros((1, 2))]}, "exactly one"),
        (
            {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1},
            "2 arrays",
        ),
        ({"output_mode": "png"}, "output_mode"),
        ({"points_per_side": 0}, "points_per_side"),
        ({"points_per_batch": 0}, "points_per_batch"),
        ({"crop_n_layers": -1}, "crop_n_layers"),
        ({"crop_n_points_downscale_factor": 0}, "downscale"),
        ({"crop_overlap_ratio": 1.5}, "overlap"),
        (
            {"points_per_side": None, "point_grids": [np.array([[0.5, 40.0]])]},
            "point_grids: a point lies outside",
        ),
    ):
        with pytest.raises(InputError, match=message):
            SamHQAutomaticMaskGenerator(nano, **options)
    with pytest.raises(InputError, match="float32"):
        SamHQAutomaticMaskGenerator(nano, **COMMON).generate(np.zeros((9, 9, 3), np.float32))


def _by_definition(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for n in sorted(range(len(boxes)), key=lambda n: -float(scores[n])):
        if all(_iou(boxes[n].tolist(), boxes[k].tolist()) <= threshold for k in kept):
            kept.append(n)
    return kept


def _iou(a: list[float], b: list[float]) -> float:
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / (sum(area) - common) if sum(area) > common else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_the_definition(seed):
    """Whole-number boxes with many equal ones and equal scores; some without area."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 6, (60, 2, 2), generator=generator)
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    scores = torch.randint(0, 5, (60,), generator=generator).float()
    for threshold in (0.0, 0.5, 0.7):
        found = nms(boxes, scores, threshold)
        assert found.tolist() == _by_definition(boxes, scores, threshold)
        if not ensure_torchvision():
            from torchvision.ops import nms as compiled

            assert torch.equal(found, compiled(boxes.float(), scores, threshold))
    assert nms(boxes[:0], scores[:0], 0.5).tolist() == []
