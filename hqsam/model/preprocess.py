"""From an image and its prompts to the network's input square.

Frames: *original* is pixels of the image as decoded; *input* is pixels of the S x S network input.
Points are (x, y), boxes xyxy. Shape letters: P prompts; N points; S input side; m side of a mask
prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hqsam.model.options import MaskEncoding, Resize

BoolMask = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]

MASK_LOGIT_EPSILON = 1e-3
"""A mask prompt's coverage is clipped to [epsilon, 1 - epsilon] before the logit, which then is within +-6.9."""


@dataclass(frozen=True)
class Frame:
    """How an image of a given size lies in the input square.

    Attributes:
        height: Rows of the original image.
        width: Columns of the original image.
        size: Side S of the input square.
        resize: ``longest_side``: SAM's own rule, aspect kept, zero padding right and bottom;
            ``stretch``: both sides to S, the protocol of the four HQ sets.
    """

    height: int
    width: int
    size: int
    resize: Resize = "longest_side"

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.size) < 1:
            raise ValueError(
                f"an image needs at least one pixel, this one is {self.width} x {self.height}"
            )
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be one of {get_args(Resize)}, is {self.resize!r}")

    @property
    def resized(self) -> tuple[int, int]:
        """(h, w) in the input square before padding; ``longest_side`` rounds as ``ResizeLongestSide`` does."""
        if self.resize == "stretch":
            return self.size, self.size
        scale = self.size * 1.0 / max(self.height, self.width)
        # SAM gives a very thin image zero rows and fails on it; one row is the smallest that can be
        # segmented.
        return max(1, int(self.height * scale + 0.5)), max(1, int(self.width * scale + 0.5))

    def points(self, xy: F64) -> F64:
        """Points ``[..., 2]`` from the original to the input frame.

        ``longest_side`` scales as ``ResizeLongestSide.apply_coords``. ``stretch`` maps pixel
        centres to pixel centres, because its boxes are pixel indices: the official script finds
        them on the resized mask.
        """
        h, w = self.resized
        scale = np.array([w / self.width, h / self.height])
        if self.resize == "stretch":
            return np.asarray((np.asarray(xy, np.float64) + 0.5) * scale - 0.5)
        return np.asarray(np.asarray(xy, np.float64) * scale)

    def boxes(self, xyxy: F64) -> F64:
        """Boxes ``[..., 4]`` from the original to the input frame."""
        xyxy = np.asarray(xyxy, np.float64)
        return self.points(xyxy.reshape(*xyxy.shape[:-1], 2, 2)).reshape(xyxy.shape)

    def image(self, image: npt.NDArray[np.uint8]) -> Tensor:
        """Resize an image for the network.

        Args:
            image: uint8 ``[H, W, 3]`` RGB of this frame's size.

        Returns:
            uint8 ``[3, h, w]``, not padded. ``longest_side`` is bit for bit ``SamPredictor``'s;
            ``stretch`` is bilinear without anti-aliasing and truncated to integers, as HQ-SAM's
            evaluation script has it.
        """
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 [{self.height}, {self.width}, 3], got {image.dtype} {image.shape}"
            )
        if self.resize == "longest_side":
            # What torchvision's resize does to a PIL image: Pillow's bilinear filter, which is
            # anti-aliased when it shrinks.
            from PIL import Image

            h, w = self.resized
            whole = Image.fromarray(np.ascontiguousarray(image))
            return _to_tensor(np.array(whole.resize((w, h), Image.Resampling.BILINEAR)))
        pixels = _to_tensor(image)[None].float()
        stretched = functional.interpolate(
            pixels, self.resized, mode="bilinear", align_corners=False
        )
        return stretched[0].to(torch.uint8)

    def mask_prompt(
        self, mask: BoolMask, *, side: int, encoding: MaskEncoding
    ) -> npt.NDArray[np.float32]:
        """A coarse mask of the original size as the decoder's mask input.

        Args:
            mask: bool ``[H, W]``.
            side: m, a divisor of S (256 for S = 1024).
            encoding: ``logits``: log-odds of the area that the mask covers in each cell, what SAM
                was trained with (its own earlier output); ``binary_255``: 255 where it covers more
                than half, else 0, what HQ-SAM's training feeds.

        Returns:
            float32 ``[m, m]``; the padding counts as background.
        """
        if mask.shape != (self.height, self.width):
            raise ValueError(
                f"the mask is {mask.shape[1]} x {mask.shape[0]}, the image {self.width} x "
                f"{self.height}"
            )
        # Share of each of the side x side cells of the input square that the mask covers.
        h, w = self.resized
        shrinks = h <= self.height and w <= self.width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        square = np.zeros((self.size, self.size), np.float32)
        square[:h, :w] = cv2.resize(mask.astype(np.float32), (w, h), interpolation=how)
        cell = self.size // side
        coverage = square.reshape(side, cell, side, cell).mean(axis=(1, 3))
        if encoding == "binary_255":
            return np.where(coverage > 0.5, np.float32(255), np.float32(0))
        clipped = np.clip(coverage, MASK_LOGIT_EPSILON, 1 - MASK_LOGIT_EPSILON)
        return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float32)


def _to_tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).contiguous()
