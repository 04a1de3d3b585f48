"""SAM's resizing rule with the methods of ``segment_anything.utils.transforms.ResizeLongestSide``, without torchvision.

Pictures are equal bit for bit: torchvision's resize of a PIL image is Pillow's, which is called
here directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hqsam.model.preprocess import Frame


class ResizeLongestSide:
    """Resizes images so that the longest side has a given length, and points and boxes with them.

    Args:
        target_length: The longest side after resizing, pixels.
    """

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize uint8 ``[H, W, 3]`` with Pillow's bilinear filter."""
        frame = Frame(image.shape[0], image.shape[1], self.target_length)
        return np.ascontiguousarray(frame.image(image).permute(1, 2, 0).numpy())

    def apply_coords(
        self, coords: npt.NDArray[Any], original_size: Sequence[int]
    ) -> npt.NDArray[np.float64]:
        """Points ``[..., 2]`` (x, y) from an image of (H, W) = ``original_size`` to the resized one."""
        return Frame(original_size[0], original_size[1], self.target_length).points(
            np.asarray(coords, np.float64)
        )

    def apply_boxes(
        self, boxes: npt.NDArray[Any], original_size: Sequence[int]
    ) -> npt.NDArray[np.float64]:
        """Boxes ``[B, 4]`` or ``[4]`` (xyxy) likewise; always ``[B, 4]`` comes back."""
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_image_torch(self, image: Tensor) -> Tensor:
        """Resize float ``[B, 3, H, W]`` on its device, anti-aliased; close to ``apply_image``, not equal."""
        size = self.get_preprocess_shape(image.shape[-2], image.shape[-1], self.target_length)
        return functional.interpolate(
            image, size, mode="bilinear", align_corners=False, antialias=True
        )

    def apply_coords_torch(self, coords: Tensor, original_size: Sequence[int]) -> Tensor:
        """``apply_coords`` for a tensor; float32 comes back."""
        h, w = self.get_preprocess_shape(original_size[0], original_size[1], self.target_length)
        scale = torch.tensor(
            [w / original_size[1], h / original_size[0]], dtype=torch.float, device=coords.device
        )
        return coords.to(torch.float) * scale

    def apply_boxes_torch(self, boxes: Tensor, original_size: Sequence[int]) -> Tensor:
        """``apply_boxes`` for a tensor; float32 ``[B, 4]`` comes back."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """(h, w) of the resized image."""
        return Frame(oldh, oldw, long_side_length).resized
