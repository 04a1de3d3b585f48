"""``SamHQAutomaticMaskGenerator``: every object of an image from a grid of points, with HQ-SAM's masks.

Source of the procedure: Segment Anything (arXiv 2304.02643), section 5 and appendix B; its geometry and run-length helpers
are used as installed (``segment_anything.utils.amg``). What is done here is the order of things: masks are filtered by
predicted IoU while they are small, and enlarged a few at a time.

Shape letters: P points of one pass; N masks; H, W image; h, w crop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hqsam.api.inputs import check_choices, check_counts, check_image
from hqsam.api.nms import box_area, nms
from hqsam.api.predictor import SamHQPredictor
from hqsam.errors import InputError
from hqsam.model.hq_sam import HQSam
from hqsam.model.sam_api import amg
from hqsam.model.tensor_input import PromptTensors

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]
_ENLARGED = 1 << 25  # logits of the crop's size that exist at one time: 128 MB


@dataclass(frozen=True)
class _Masks:
    """Masks of one image or crop, in the frame of the whole image.

    Attributes:
        boxes: int64 ``[N, 4]`` xyxy, maxima inclusive.
        iou: Predicted IoU ``[N]``.
        stability: Stability score ``[N]``.
        points: float64 ``[N, 2]``, the point that gave each.
        crops: int64 ``[N, 4]`` xyxy, the crop that it was found in.
        rles: Uncompressed run lengths of the whole image.
    """

    boxes: Tensor
    iou: Tensor
    stability: Tensor
    points: Tensor
    crops: Tensor
    rles: list[dict[str, Any]]

    def __getitem__(self, rows: Tensor) -> _Masks:
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
        no_boxes, no_points, none = torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 2).double(), torch.zeros(0)
        return _Masks(
            boxes=torch.cat([no_boxes, *(p.boxes for p in parts)]),
            iou=torch.cat([none, *(p.iou for p in parts)]),
            stability=torch.cat([none, *(p.stability for p in parts)]),
            points=torch.cat([no_points, *(p.points for p in parts)]),
            crops=torch.cat([no_boxes, *(p.crops for p in parts)]),
            rles=[rle for p in parts for rle in p.rles],
        )


class SamHQAutomaticMaskGenerator:
    """Drop-in for ``SamAutomaticMaskGenerator``: the same arguments and records, with HQ-SAM's masks.

    Like the authors' generator it gives one mask per point where SAM's gives three: the best of SAM's three plus the HQ
    token's.

    Args:
        model: Of ``build_sam_hq``.
        points_per_side: Points along one side of the image; None if ``point_grids`` are given.
        points_per_batch: Points per decoder call.
        pred_iou_thresh: Smallest predicted IoU, 0..1; 0 keeps all.
        stability_score_thresh: Smallest stability score, 0..1; 0 keeps all.
        stability_score_offset: Shift of the threshold, in logits, that the stability score compares.
        box_nms_thresh: Box IoU above which the worse of two masks of one crop goes.
        crop_n_layers: Layers of crops to run besides the whole image; layer i has ``4 ** i`` of them.
        crop_nms_thresh: Box IoU above which the mask of the larger of two crops goes.
        crop_overlap_ratio: Overlap of the crops, as a share of the image's shorter side, in the first layer.
        crop_n_points_downscale_factor: Points per side shrink by this factor with each layer.
        point_grids: Points for each layer, ``[n, 2]`` in 0..1, instead of ``points_per_side``.
        min_mask_region_area: Holes and islands smaller than this, in pixels, are removed; 0: none.
        output_mode: ``binary_mask`` bool ``[H, W]``, ``uncompressed_rle``, or ``coco_rle``.

    Raises:
        InputError: Not exactly one of ``points_per_side`` and ``point_grids``, an unknown ``output_mode``, or a number of
            points or layers that makes no sense.
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
        check_counts(points_per_batch=points_per_batch, crop_n_points_downscale_factor=crop_n_points_downscale_factor)
        check_counts(0, crop_n_layers=crop_n_layers)
        if points_per_side is not None:
            check_counts(points_per_side=points_per_side)
        self.point_grids = _grids(points_per_side, point_grids, crop_n_layers, crop_n_points_downscale_factor)
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
        self, image: npt.NDArray[np.uint8], multimask_output: bool = True, *, hq_token_only: bool = False
    ) -> list[dict[str, Any]]:
        """Find masks all over an image.

        Args:
            image: uint8 ``[H, W, 3]`` RGB; see ``check_image`` for what else is accepted.
            multimask_output: Whether SAM's part is the best of its three masks instead of its single one.
            hq_token_only: The HQ token's mask alone instead of its sum with SAM's.

        Returns:
            One record per mask: ``segmentation`` (see ``output_mode``), ``area`` in pixels, ``bbox`` and ``crop_box`` as
            x, y, width, height, ``predicted_iou``, ``point_coords`` (the point that gave it), ``stability_score``.

        Raises:
            InputError: The image cannot be used.
        """
        image = check_image(image)
        boxes, layers = amg().generate_crop_boxes(image.shape[:2], self.crop_n_layers, self.crop_overlap_ratio)
        crops = [
            self._of_crop(image, box, self.point_grids[layer], multimask_output, hq_token_only)
            for box, layer in zip(boxes, layers, strict=True)
            if box[0] < box[2] and box[1] < box[3]  # an image of a few pixels has fewer crops than a layer asks for
        ]
        found = _Masks.concatenated(crops)
        if len(crops) > 1:  # masks of smaller crops are the more detailed ones
            found = found[nms(found.boxes, 1 / box_area(found.crops), self.crop_nms_thresh)]
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
            low, iou = self._decode(some, (y1 - y0, x1 - x0), multimask, hq_token_only)
            parts += list(self._kept(low, iou, torch.as_tensor(some), crop, image.shape[:2]))
        self.predictor.reset_image()
        found = _Masks.concatenated(parts)
        return found[nms(found.boxes, found.iou, self.box_nms_thresh)]

    def _decode(
        self, points_P2: npt.NDArray[Any], size: tuple[int, int], multimask: bool, hq_token_only: bool
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution logits ``[P,1,m,m]`` and predicted IoUs ``[P]``."""
        moved = self.predictor.transform.apply_coords(points_P2, size)
        device = self.predictor.device
        points = torch.as_tensor(moved, device=device)[:, None]
        low, iou = self.predictor.decode_torch(
            PromptTensors(points, torch.ones(len(moved), 1, dtype=torch.int, device=device)),
            multimask_output=multimask,
            hq_token_only=hq_token_only,
            prompts_per_call=self.points_per_batch,
        )
        return low, iou[:, 0]

    def _kept(
        self, low_P1mm: Tensor, iou_P: Tensor, points_P2: Tensor, crop: list[int], size: tuple[int, int]
    ) -> Iterator[_Masks]:
        """What passes the filters, a few masks at a time."""
        good = torch.arange(len(iou_P))
        if self.pred_iou_thresh > 0:
            good = good[(iou_P > self.pred_iou_thresh).cpu()]
        step = max(1, _ENLARGED // ((crop[2] - crop[0]) * (crop[3] - crop[1])))
        for rows in torch.split(good, step):
            if len(rows):
                logits_Nhw = self.predictor.enlarged(low_P1mm[rows])[:, 0]
                yield self._filtered(logits_Nhw, iou_P[rows].cpu(), points_P2[rows], crop, size)

    def _filtered(
        self, logits_Nhw: Tensor, iou_N: Tensor, points_N2: Tensor, crop: list[int], size: tuple[int, int]
    ) -> _Masks:
        """Stable masks that do not lean on an inner edge of the crop, in the frame of the whole image."""
        helpers, threshold = amg(), self.predictor.model.sam.mask_threshold
        stability = helpers.calculate_stability_score(logits_Nhw, threshold, self.stability_score_offset)
        masks = logits_Nhw > threshold
        boxes = helpers.batched_mask_to_box(masks)
        height, width = size
        keep = ~helpers.is_box_near_crop_edge(boxes, crop, [0, 0, width, height])
        if self.stability_score_thresh > 0:
            keep &= stability >= self.stability_score_thresh
        whole = helpers.uncrop_masks(masks[keep], crop, height, width)
        kept = keep.cpu()
        return _Masks(
            boxes=helpers.uncrop_boxes_xyxy(boxes[keep].cpu(), crop),
            iou=iou_N[kept],
            stability=stability[keep].cpu(),
            points=helpers.uncrop_points(points_N2[kept], crop),
            crops=torch.tensor([crop] * int(kept.sum()), dtype=torch.int64).reshape(-1, 4),
            rles=helpers.mask_to_rle_pytorch(whole),
        )

    def _without_small_regions(self, found: _Masks) -> _Masks:
        """Fill small holes and remove small islands; then masks that became alike go, changed ones first."""
        if not found.rles:
            return found
        helpers = amg()
        cleaned = [self._cleaned(helpers.rle_to_mask(rle)) for rle in found.rles]
        boxes = [_box(mask) if changed else box for (mask, changed), box in zip(cleaned, found.boxes, strict=True)]
        rles = [
            helpers.mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0] if changed else rle
            for (mask, changed), rle in zip(cleaned, found.rles, strict=True)
        ]
        unchanged = torch.tensor([float(not changed) for _, changed in cleaned])
        new = _Masks(torch.stack(boxes), found.iou, found.stability, found.points, found.crops, rles)
        return new[nms(new.boxes, unchanged, max(self.box_nms_thresh, self.crop_nms_thresh))]

    def _cleaned(self, mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], bool]:
        helpers, area = amg(), self.min_mask_region_area
        filled, holes = helpers.remove_small_regions(mask, area, mode="holes")
        cleaned, islands = helpers.remove_small_regions(filled, area, mode="islands")
        return np.ascontiguousarray(cleaned), holes or islands

    def _record(self, found: _Masks, n: int) -> dict[str, Any]:
        helpers, rle = amg(), found.rles[n]
        make = {"binary_mask": helpers.rle_to_mask, "coco_rle": helpers.coco_encode_rle}.get(self.output_mode)
        return {
            "segmentation": rle if make is None else make(rle),
            "area": helpers.area_from_rle(rle),
            "bbox": helpers.box_xyxy_to_xywh(found.boxes[n]).tolist(),
            "predicted_iou": found.iou[n].item(),
            "point_coords": [found.points[n].tolist()],
            "stability_score": found.stability[n].item(),
            "crop_box": helpers.box_xyxy_to_xywh(found.crops[n]).tolist(),
        }


def _box(mask: npt.NDArray[np.bool_]) -> Tensor:
    box: Tensor = amg().batched_mask_to_box(torch.from_numpy(mask)[None])[0]
    return box


def _grids(
    points_per_side: int | None, grids: list[npt.NDArray[Any]] | None, layers: int, factor: int
) -> list[npt.NDArray[Any]]:
    """Points in 0..1 for the image and for each layer of crops."""
    if (points_per_side is None) == (grids is None):
        raise InputError("points_per_side and point_grids: exactly one must be given", cure="set the other to None")
    if grids is None:
        found: list[npt.NDArray[Any]] = amg().build_all_layer_point_grids(points_per_side, layers, factor)
        return found
    if len(grids) <= layers or any(np.ndim(g) != 2 or np.shape(g)[1] != 2 for g in grids):
        raise InputError(f"point_grids: {layers + 1} arrays [n, 2] are needed", cure="one per layer of crops")
    return list(grids)
