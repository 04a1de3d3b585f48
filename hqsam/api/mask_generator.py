"""``SamHQAutomaticMaskGenerator``: every object of an image from a grid of points, with HQ-SAM's masks.

Source of the procedure: Segment Anything (arXiv 2304.02643), section 5 and appendix B. Of
``segment_anything.utils.amg`` the crops, the grids and the clean-up are used as installed. What
works on logits is written anew, because there it makes 64-bit floats on the model's device (Apple's
GPUs have none), counts pixels of a row in 16 bits, gives a mask without a pixel a stability of 0/0,
and pads every mask of a crop to the whole image. Masks are filtered by predicted IoU while they are
small, and enlarged a few at a time.

Shape letters: P points of one pass; N masks; H, W image; h, w crop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hqsam.api.inputs import check_choices, check_counts, check_image
from hqsam.api.nms import nms
from hqsam.api.predictor import SamHQPredictor
from hqsam.errors import InputError
from hqsam.model.hq_sam import HQSam
from hqsam.model.sam_api import amg
from hqsam.model.tensor_input import PromptTensors
from hqsam.prediction.postprocess import MaskPatch

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]
_ENLARGED = 1 << 25  # logits of the crop's size that exist at one time: 128 MB
_EDGE = 20  # pixels


@dataclass(frozen=True)
class _Masks:
    """Masks of one image or crop, in the frame of the whole image. On the CPU, so that 64-bit numbers are at hand.

    Attributes:
        boxes: int64 ``[N, 4]`` xyxy, maxima inclusive.
        iou: Predicted IoU, float32 ``[N]``.
        stability: Stability score, float32 ``[N]``.
        points: float64 ``[N, 2]``, the point that gave each.
        crops: int64 ``[N, 4]`` xyxy, the crop that it was found in.
        rles: Uncompressed run lengths of the whole image.
    """

    boxes: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float32]
    stability: npt.NDArray[np.float32]
    points: npt.NDArray[np.float64]
    crops: npt.NDArray[np.int64]
    rles: list[dict[str, Any]]

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> _Masks:
        return _Masks(
            boxes=self.boxes[rows],
            iou=self.iou[rows],
            stability=self.stability[rows],
            points=self.points[rows],
            crops=self.crops[rows],
            rles=[self.rles[n] for n in rows.tolist()],
        )

    @staticmethod
    def concatenated(parts: Sequence[_Masks]) -> _Masks:
        """All masks of several parts in order; none of no parts."""
        no_boxes, none = np.zeros((0, 4), np.int64), np.zeros(0, np.float32)
        return _Masks(
            boxes=np.concatenate([no_boxes, *(p.boxes for p in parts)]),
            iou=np.concatenate([none, *(p.iou for p in parts)]),
            stability=np.concatenate([none, *(p.stability for p in parts)]),
            points=np.concatenate([np.zeros((0, 2)), *(p.points for p in parts)]),
            crops=np.concatenate([no_boxes, *(p.crops for p in parts)]),
            rles=[rle for p in parts for rle in p.rles],
        )

    def suppressed(self, scores: npt.NDArray[np.float32], iou_threshold: float) -> _Masks:
        """What non-maximum suppression leaves, best scores first."""
        return self[
            nms(torch.from_numpy(self.boxes), torch.from_numpy(scores), iou_threshold).numpy()
        ]


class SamHQAutomaticMaskGenerator:
    """Drop-in for ``SamAutomaticMaskGenerator``: the same arguments and records, with HQ-SAM's masks.

    Like the authors' generator it gives one mask per point where SAM's gives three: the best of
    SAM's three plus the HQ token's. Unlike SAM's it gives no record without a pixel, and every
    number of a record is a plain, finite one.

    Args:
        model: Of ``build_sam_hq``.
        points_per_side: Points along one side of the image; None if ``point_grids`` are given.
        points_per_batch: Points per decoder call.
        pred_iou_thresh: Smallest predicted IoU, 0..1; 0 keeps all.
        stability_score_thresh: Smallest stability score, 0..1; 0 keeps all.
        stability_score_offset: Shift of the threshold, in logits, that the stability score
            compares.
        box_nms_thresh: Box IoU above which the worse of two masks of one crop goes.
        crop_n_layers: Layers of crops to run besides the whole image; layer i has ``4 ** i`` of
            them.
        crop_nms_thresh: Box IoU above which the mask of the larger of two crops goes.
        crop_overlap_ratio: Overlap of the crops, as a share of the image's shorter side, in the
            first layer.
        crop_n_points_downscale_factor: Points per side shrink by this factor with each layer.
        point_grids: Points for each layer, ``[n, 2]`` in 0..1, instead of ``points_per_side``.
        min_mask_region_area: Holes and islands smaller than this, in pixels, are removed; 0: none.
        output_mode: ``binary_mask`` bool ``[H, W]``, ``uncompressed_rle``, or ``coco_rle``.

    Raises:
        InputError: Not exactly one of ``points_per_side`` and ``point_grids``, an unknown
            ``output_mode``, or a number of points or layers, or an overlap, that makes no sense.
    """

    def __init__(
        self,
        model: HQSam,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: list[npt.NDArray[Any]] | None = None,
        min_mask_region_area: int = 0,
        output_mode: OutputMode = "binary_mask",
    ) -> None:
        check_choices(output_mode=(output_mode, OutputMode))
        check_counts(
            points_per_batch=points_per_batch,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
        )
        check_counts(0, crop_n_layers=crop_n_layers)
        if not 0 <= crop_overlap_ratio <= 1:
            raise InputError(
                f"crop_overlap_ratio is {crop_overlap_ratio!r}", cure="give a number from 0 to 1"
            )
        if points_per_side is not None:
            check_counts(points_per_side=points_per_side)
        self.point_grids = _grids(
            points_per_side, point_grids, crop_n_layers, crop_n_points_downscale_factor
        )
        self.predictor = SamHQPredictor(model)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode

    @torch.no_grad()
    def generate(
        self,
        image: npt.NDArray[np.uint8],
        multimask_output: bool = True,
        *,
        hq_token_only: bool = False,
    ) -> list[dict[str, Any]]:
        """Find masks all over an image.

        Args:
            image: uint8 ``[H, W, 3]`` RGB; see ``check_image`` for what else is accepted.
            multimask_output: Whether SAM's part is the best of its three masks instead of its
                single one.
            hq_token_only: The HQ token's mask alone instead of its sum with SAM's.

        Returns:
            One record per mask: ``segmentation`` (see ``output_mode``), ``area`` in pixels,
            ``bbox`` and ``crop_box`` as x, y, width, height, ``predicted_iou``, ``point_coords``
            (the point that gave it), ``stability_score``.

        Raises:
            InputError: The image cannot be used.
        """
        image = check_image(image)
        boxes, layers = amg().generate_crop_boxes(
            image.shape[:2], self.crop_n_layers, self.crop_overlap_ratio
        )
        crops = [
            self._of_crop(image, box, self.point_grids[layer], multimask_output, hq_token_only)
            for box, layer in zip(boxes, layers, strict=True)
            if box[0] < box[2]
            and box[1] < box[3]  # an image of a few pixels has fewer crops than a layer asks for
        ]
        found = _Masks.concatenated(crops)
        if len(crops) > 1:  # masks of smaller crops are the more detailed ones
            sides = found.crops[:, 2:] - found.crops[:, :2]
            found = found.suppressed(
                (1 / sides.prod(axis=1)).astype(np.float32), self.crop_nms_thresh
            )
        if self.min_mask_region_area > 0:
            found = self._without_small_regions(found)
        return [self._record(found, n) for n in range(len(found.rles))]

    def _of_crop(
        self,
        image: npt.NDArray[np.uint8],
        crop: list[int],
        grid_n2: npt.NDArray[Any],
        multimask: bool,
        hq_token_only: bool,
    ) -> _Masks:
        x0, y0, x1, y1 = crop
        self.predictor.set_image(image[y0:y1, x0:x1])
        points_n2 = grid_n2 * np.array([[x1 - x0, y1 - y0]])
        parts = []
        for start in range(0, len(points_n2), self.points_per_batch):
            some = points_n2[start : start + self.points_per_batch]
            moved = self.predictor.transform.apply_coords(some, (y1 - y0, x1 - x0))
            device = self.predictor.device
            points = torch.from_numpy(moved.astype(np.float32)).to(device)[:, None]
            # Low-resolution logits [P, 1, m, m] and predicted IoUs [P, 1].
            low, iou = self.predictor.decode_torch(
                PromptTensors(points, torch.ones(len(moved), 1, dtype=torch.int, device=device)),
                multimask_output=multimask,
                hq_token_only=hq_token_only,
                prompts_per_call=self.points_per_batch,
            )
            ious = iou[:, 0].float().cpu().numpy()
            parts += list(self._kept(low, ious, some, crop, image.shape[:2]))
        self.predictor.reset_image()
        found = _Masks.concatenated(parts)
        return found.suppressed(found.iou, self.box_nms_thresh)

    def _kept(
        self,
        low_P1mm: Tensor,
        iou_P: npt.NDArray[np.float32],
        points_P2: npt.NDArray[np.float64],
        crop: list[int],
        size: tuple[int, int],
    ) -> Iterator[_Masks]:
        """What passes the filters, a few masks at a time."""
        good = np.isfinite(iou_P)
        if self.pred_iou_thresh > 0:
            good &= iou_P > self.pred_iou_thresh
        rows, step = (
            np.flatnonzero(good),
            max(1, _ENLARGED // ((crop[2] - crop[0]) * (crop[3] - crop[1]))),
        )
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            logits_Nhw = self.predictor.enlarged(low_P1mm[torch.from_numpy(some)])[:, 0]
            yield self._filtered(logits_Nhw, iou_P[some], points_P2[some], crop, size)

    def _filtered(
        self,
        logits_Nhw: Tensor,
        iou_N: npt.NDArray[np.float32],
        points_N2: npt.NDArray[np.float64],
        crop: list[int],
        size: tuple[int, int],
    ) -> _Masks:
        """Stable masks that do not lean on an inner edge of the crop, in the frame of the whole image."""
        threshold = self.predictor.model.sam.mask_threshold
        stability = _stability(logits_Nhw, threshold, self.stability_score_offset)
        patches = [_patch(mask, crop[:2], size) for mask in (logits_Nhw > threshold).cpu().numpy()]
        boxes = np.array([_box(patch) for patch in patches]).reshape(-1, 4)
        # Not within 20 pixels of an inner edge of the crop: a neighbouring crop has those whole.
        at_crop = np.abs(boxes - np.array([crop])) <= _EDGE
        at_image = np.abs(boxes - np.array([[0, 0, size[1], size[0]]])) <= _EDGE
        leaning = (at_crop & ~at_image).any(axis=1)
        keep = np.array([patch.area > 0 for patch in patches]) & ~leaning
        if self.stability_score_thresh > 0:
            keep &= stability >= self.stability_score_thresh
        return _Masks(
            boxes=boxes[keep],
            iou=iou_N[keep],
            stability=stability[keep],
            points=points_N2[keep] + np.array([crop[:2]]),
            crops=np.array([crop] * int(keep.sum()), np.int64).reshape(-1, 4),
            rles=[_rle(patch) for patch, kept in zip(patches, keep, strict=True) if kept],
        )

    def _without_small_regions(self, found: _Masks) -> _Masks:
        """Fill small holes and remove small islands; then masks that became alike go, changed ones first."""
        helpers, area = amg(), self.min_mask_region_area
        patches = []
        for rle in found.rles:
            mask = helpers.rle_to_mask(rle)
            mask, holes = helpers.remove_small_regions(mask, area, mode="holes")
            mask, islands = helpers.remove_small_regions(mask, area, mode="islands")
            whole = np.ascontiguousarray(mask)
            patches.append(_patch(whole, [0, 0], whole.shape) if holes or islands else None)
        boxes = [
            box if patch is None else _box(patch)
            for patch, box in zip(patches, found.boxes, strict=True)
        ]
        rles = [
            rle if patch is None else _rle(patch)
            for patch, rle in zip(patches, found.rles, strict=True)
        ]
        unchanged = np.array([float(patch is None) for patch in patches], np.float32)
        new = replace(found, boxes=np.array(boxes, np.int64).reshape(-1, 4), rles=rles)
        return new.suppressed(unchanged, max(self.box_nms_thresh, self.crop_nms_thresh))

    def _record(self, found: _Masks, n: int) -> dict[str, Any]:
        helpers, rle = amg(), found.rles[n]
        make = {"binary_mask": helpers.rle_to_mask, "coco_rle": helpers.coco_encode_rle}.get(
            self.output_mode
        )
        return {
            "segmentation": rle if make is None else make(rle),
            "area": helpers.area_from_rle(rle),
            "bbox": _xywh(found.boxes[n]),
            "predicted_iou": found.iou[n].item(),
            "point_coords": [found.points[n].tolist()],
            "stability_score": found.stability[n].item(),
            "crop_box": _xywh(found.crops[n]),
        }


def _stability(logits_Nhw: Tensor, threshold: float, offset: float) -> npt.NDArray[np.float32]:
    """IoU of each mask at a higher and at a lower threshold, ``[N]``; 0 where neither has a pixel."""
    above, below = (
        (logits_Nhw > level).sum((1, 2), dtype=torch.int32).cpu().numpy()
        for level in (threshold + offset, threshold - offset)
    )
    stability: npt.NDArray[np.float32] = (above / np.maximum(below, 1)).astype(np.float32)
    return stability


def _patch(
    mask_hw: npt.NDArray[np.bool_], corner: Sequence[int], size: tuple[int, int]
) -> MaskPatch:
    """A mask of a crop whose upper left pixel is ``corner`` (x, y), cut to its own box, in the whole image."""
    ys, xs = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    y, x = (slice(s[0], s[-1] + 1) if len(s) else slice(0, 0) for s in (ys, xs))
    inside_xy = np.ascontiguousarray(mask_hw[y, x].T)
    return MaskPatch(
        inside_xy, corner[0] + int(x.start), corner[1] + int(y.start), size[0], size[1]
    )


def _box(patch: MaskPatch) -> tuple[int, int, int, int]:
    """xyxy, maxima inclusive."""
    w, h = patch.inside_xy.shape
    return patch.x0, patch.y0, patch.x0 + max(w, 1) - 1, patch.y0 + max(h, 1) - 1


def _rle(patch: MaskPatch) -> dict[str, Any]:
    return {"size": [patch.height, patch.width], "counts": patch.counts()}


def _xywh(box_4: npt.NDArray[np.int64]) -> list[int]:
    x0, y0, x1, y1 = box_4.tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def _grids(
    points_per_side: int | None, grids: list[npt.NDArray[Any]] | None, layers: int, factor: int
) -> list[npt.NDArray[Any]]:
    """Points in 0..1 for the image and for each layer of crops."""
    if (points_per_side is None) == (grids is None):
        raise InputError(
            "points_per_side and point_grids: exactly one must be given",
            cure="set the other to None",
        )
    if points_per_side is not None:
        # A deep layer keeps one point at least, where SAM's own grid divides by zero.
        return [
            amg().build_point_grid(max(1, points_per_side // factor**layer))
            for layer in range(layers + 1)
        ]
    if (
        grids is None
        or len(grids) <= layers
        or any(np.ndim(g) != 2 or np.shape(g)[1] != 2 for g in grids)
    ):
        raise InputError(
            f"point_grids: {layers + 1} arrays [n, 2] are needed", cure="one per layer of crops"
        )
    if not all(((np.asarray(g) >= 0) & (np.asarray(g) <= 1)).all() for g in grids):
        raise InputError(
            "point_grids: a point lies outside 0..1",
            cure="divide x by the width and y by the height",
        )
    return list(grids)
