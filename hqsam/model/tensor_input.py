"""Images and prompts as tensors in the network's frame, checked: what could give a silently wrong mask is refused.

Shape letters: B prompts; N points; S input side; h, w resized image; m side of low-resolution
masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hqsam.errors import InputError
from hqsam.model.preprocess import Frame

_ROUNDING = (
    1.0  # pixels of the network's frame by which a point on the border may seem to lie outside
)


def check_transformed(image_13hw: Tensor, original_size: tuple[int, int], side: int) -> None:
    """An image that the user resized.

    Args:
        image_13hw: Values 0..255, longest side S.
        original_size: (H, W) before resizing.
        side: S.

    Raises:
        InputError: Another shape, another aspect than the original's, values that are not finite or
            not 0..255.
    """
    if not isinstance(image_13hw, Tensor):
        raise InputError(
            f"the transformed image is a {type(image_13hw).__name__}",
            cure="give a tensor [1, 3, h, w]",
        )
    shape = list(image_13hw.shape)
    if len(shape) != 4 or shape[:2] != [1, 3] or max(shape[2:]) != side:
        raise InputError(
            f"the transformed image has the shape {shape}", cure=f"[1, 3, h, w], long side {side}"
        )
    if min(original_size) < 1 or Frame(*original_size, side).resized != tuple(shape[2:]):
        raise InputError(
            f"the transformed image is {shape[3]} x {shape[2]}, which an original of "
            f"{original_size[1]} x "
            f"{original_size[0]} does not become",
            cure="give (height, width) of the image before resizing",
        )
    if image_13hw.dtype != torch.uint8:
        if not bool(image_13hw.isfinite().all()):
            raise InputError("the transformed image has values that are not finite")
        low, high = float(image_13hw.min()), float(image_13hw.max())
        # Whole numbers up to 1 are a very dark picture; fractions are a picture scaled to 0..1.
        scaled = high <= 1 and bool((image_13hw != image_13hw.round()).any())
        if low < 0 or high > 255 or scaled:
            raise InputError(
                f"the transformed image has values from {low:g} to {high:g}",
                cure="give values 0..255",
            )


@dataclass(frozen=True)
class PromptTensors:
    """Prompts of B objects in the network's frame, as ``SamPredictor.predict_torch`` takes them.

    Attributes:
        points: ``[B, N, 2]`` (x, y).
        labels: ``[B, N]``: 1 foreground, 0 background, -1 padding.
        boxes: ``[B, 4]`` xyxy.
        masks: ``[B, 1, m, m]`` low-resolution logits.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def check(self, *, size: tuple[int, int], mask_size: int) -> None:
        """Refuse what could only give a meaningless mask.

        Args:
            size: (h, w) of the image in the network's frame.
            mask_size: m.

        Raises:
            InputError: What is wrong.
        """
        if (self.points is None) != (self.labels is None):
            raise InputError(
                "prompt: points without labels, or labels without points", cure="give both"
            )
        given = {
            "point_coords": self.points,
            "point_labels": self.labels,
            "boxes": self.boxes,
            "mask_input": self.masks,
        }
        for name, value in given.items():
            if value is not None and not isinstance(value, Tensor):
                raise InputError(
                    f"prompt: {name} is a {type(value).__name__}",
                    cure="give tensors, or use predict",
                )
        counts = {name: len(t) for name, t in given.items() if t is not None and t.ndim}
        if not counts:
            raise InputError("prompt: neither box nor points nor mask")
        if len(set(counts.values())) > 1:
            raise InputError(f"prompt: {counts}", cure="give as many of each")
        if self.points is not None and self.labels is not None:
            _check_points(self.points, self.labels, size)
            if (
                self.boxes is None
                and self.masks is None
                and not bool((self.labels >= 0).any(dim=1).all())
            ):
                raise InputError(
                    "prompt: an object without any point",
                    cure="give a point that is not padding, or a box",
                )
        if self.boxes is not None:
            _check_boxes(self.boxes, size)
        if self.masks is not None:
            if list(self.masks.shape[1:]) != [1, mask_size, mask_size]:
                raise InputError(
                    f"prompt: mask_input has the shape {list(self.masks.shape)}",
                    cure=f"give [B, 1, {mask_size}, {mask_size}]",
                )
            check_logits(self.masks)


def check_logits(mask_input: Tensor | npt.NDArray[Any]) -> None:
    """Low-resolution logits, as every entry that takes a ``mask_input`` wants them.

    Raises:
        InputError: Whole numbers or bools, which are a mask and would silently be wrong as logits;
            values not finite.
    """
    dtype = mask_input.dtype
    if not (
        dtype.is_floating_point
        if isinstance(dtype, torch.dtype)
        else np.issubdtype(dtype, np.floating)
    ):
        cure = (
            "give an earlier prediction's logits; a mask of the image's size goes to "
            "predict_batch as Prompt(mask=...)"
        )
        raise InputError(f"prompt: mask_input is {dtype}, not logits", cure=cure)
    finite = mask_input.isfinite() if isinstance(mask_input, Tensor) else np.isfinite(mask_input)
    if not bool(finite.all()):
        raise InputError("prompt: mask_input has values that are not finite")


def _check_points(coords: Tensor, labels: Tensor, size: tuple[int, int]) -> None:
    if coords.ndim != 3 or coords.shape[2] != 2 or labels.shape != coords.shape[:2]:
        shapes = f"{list(coords.shape)} and {list(labels.shape)}"
        raise InputError(
            f"prompt: point_coords and point_labels have the shapes {shapes}",
            cure="[B, N, 2] and [B, N]",
        )
    if not bool(((labels == 1) | (labels == 0) | (labels == -1)).all()):
        unknown = sorted(set(labels.flatten().tolist()) - {1, 0, -1})
        raise InputError(f"prompt: labels {unknown}; 1 is foreground, 0 is background, -1 pads")
    used = coords[labels >= 0]
    limit = used.new_tensor([size[1], size[0]]) + _ROUNDING
    if not bool(((used >= -_ROUNDING) & (used <= limit)).all()):  # false for NaN too
        raise InputError(
            "prompt: a point is not finite or lies outside the image",
            cure="use transform.apply_coords_torch",
        )


def _check_boxes(boxes: Tensor, size: tuple[int, int]) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(
            f"prompt: boxes has the shape {list(boxes.shape)}", cure="give [B, 4], x0 y0 x1 y1"
        )
    x0, y0, x1, y1 = boxes.unbind(1)
    if not bool(((x0 <= x1) & (y0 <= y1) & boxes.isfinite().all(1)).all()):
        raise InputError(
            "prompt: a box is reversed or not finite", cure="x0 y0 x1 y1 with x0 <= x1 and y0 <= y1"
        )
    if bool(((x1 < 0) | (y1 < 0) | (x0 > size[1]) | (y0 > size[0])).any()):
        raise InputError(
            "prompt: a box lies outside the image", cure="use transform.apply_boxes_torch"
        )
