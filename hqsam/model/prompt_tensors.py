"""Prompts as tensors in the network's frame, checked: what could give a silently wrong mask is refused.

Shape letters: B prompts; N points; m side of low-resolution masks.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hqsam.errors import InputError

_ROUNDING = 1.0  # pixels of the network's frame by which a point on the border may seem to lie outside


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
            raise InputError("prompt: points without labels, or labels without points", cure="give both")
        given = {
            "point_coords": self.points, "point_labels": self.labels, "boxes": self.boxes, "mask_input": self.masks
        }  # fmt: skip
        counts = {name: len(t) for name, t in given.items() if t is not None and t.ndim}
        if not counts:
            raise InputError("prompt: neither box nor points nor mask")
        if len(set(counts.values())) > 1:
            raise InputError(f"prompt: {counts}", cure="give as many of each")
        if self.points is not None and self.labels is not None:
            _check_points(self.points, self.labels, size)
        if self.boxes is not None:
            _check_boxes(self.boxes, size)
        if self.masks is not None:
            _check_masks(self.masks, mask_size)


def _check_masks(masks: Tensor, side: int) -> None:
    if list(masks.shape[1:]) != [1, side, side]:
        raise InputError(f"prompt: mask_input has the shape {list(masks.shape)}", cure=f"give [B, 1, {side}, {side}]")
    if not bool(masks.isfinite().all()):
        raise InputError("prompt: mask_input has values that are not finite")


def _check_points(coords: Tensor, labels: Tensor, size: tuple[int, int]) -> None:
    if coords.ndim != 3 or coords.shape[2] != 2 or labels.shape != coords.shape[:2]:
        shapes = f"{list(coords.shape)} and {list(labels.shape)}"
        raise InputError(f"prompt: point_coords and point_labels have the shapes {shapes}", cure="[B, N, 2] and [B, N]")
    if not bool(((labels == 1) | (labels == 0) | (labels == -1)).all()):
        unknown = sorted(set(labels.flatten().tolist()) - {1, 0, -1})
        raise InputError(f"prompt: labels {unknown}; 1 is foreground, 0 is background, -1 pads")
    used = coords[labels >= 0]
    limit = used.new_tensor([size[1], size[0]]) + _ROUNDING
    if not bool(((used >= -_ROUNDING) & (used <= limit)).all()):  # false for NaN too
        raise InputError(
            "prompt: a point is not finite or lies outside the image", cure="use transform.apply_coords_torch"
        )


def _check_boxes(boxes: Tensor, size: tuple[int, int]) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"prompt: boxes has the shape {list(boxes.shape)}", cure="give [B, 4], x0 y0 x1 y1")
    x0, y0, x1, y1 = boxes.unbind(1)
    if not bool(((x0 <= x1) & (y0 <= y1) & boxes.isfinite().all(1)).all()):
        raise InputError("prompt: a box is reversed or not finite", cure="x0 y0 x1 y1 with x0 <= x1 and y0 <= y1")
    if bool(((x1 < 0) | (y1 < 0) | (x0 > size[1]) | (y0 > size[0])).any()):
        raise InputError("prompt: a box lies outside the image", cure="use transform.apply_boxes_torch")
