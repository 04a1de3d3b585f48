"""The mask prompt: the object's mask with noise about its boundary, as in the official training.

In the tables a mask prompt is any coarse mask, whoever made it (``kind``: ``mask``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.formats.resize import resize_bilinear
from hqsam_datasets.prompts.base import (
    U8,
    BoolMask,
    Drawn,
    PlanOptions,
    PromptArrays,
    PromptKind,
    Target,
)

NOISE_THRESHOLD = 0.01
NOISE_FACTOR = 8


def noise_region(mask: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find the region to disturb, around the contour: what is lost when a mask is reduced eightfold and enlarged.

    Args:
        mask: float32 [H, W], 0..1; H and W at least 8.

    Returns:
        bool [H, W]: |mask - recovered| >= 0.01.

    Source: SysCV/sam-hq, train/utils/misc.py, `masks_noise` ("from Mask Transfiner").
    """
    height, width = mask.shape
    small = resize_bilinear(mask, height // NOISE_FACTOR, width // NOISE_FACTOR)
    recovered = resize_bilinear(small, height, width)
    return np.asarray(np.abs(mask - recovered) >= NOISE_THRESHOLD)


def noisy_mask(
    mask: NDArray[Any],
    *,
    rng: np.random.Generator | None = None,
    noise: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Add Gaussian noise inside `noise_region`, then threshold at 0.5.

    Args:
        mask: [H, W], values 0..255, at the model's mask input size.
        rng: draws one standard normal number per pixel.
        noise: float32 [H, W] to use instead of drawing.

    Returns:
        uint8 [H, W], 0 or 255: what the official code feeds as mask prompt (not logits).

    Source: SysCV/sam-hq, train/utils/misc.py, `masks_noise`.
    """
    grey = mask.astype(np.float32) / np.float32(255)
    if noise is None:
        if rng is None:
            raise ValueError("give a generator or the noise")
        noise = rng.standard_normal(grey.shape, dtype=np.float32)
    shaken = grey + noise * noise_region(grey)
    return np.where(shaken > 0.5, 255, 0).astype(np.uint8)


class NoiseMaskPrompt(PromptKind):
    """See the module."""

    def plan(self, target: Target, *, rng: np.random.Generator, options: PlanOptions) -> Drawn:
        """Add the noise at the size of the model's mask input."""
        size = options.mask_input_size
        return Drawn(
            pictures={"noise": noisy_mask(resize_bilinear(target.shown, size, size), rng=rng)}
        )

    def planned(self, record: Mapping[str, Any], picture: Callable[[str], U8]) -> PromptArrays:
        """Read the picture ``noise``."""
        return PromptArrays(mask=picture("noise"))

    def of_mask(self, mask: BoolMask, *, rng: np.random.Generator) -> PromptArrays | None:
        """Add the noise at the image's own size; an image smaller than `NOISE_FACTOR` pixels gets none."""
        if not mask.any() or min(mask.shape) < NOISE_FACTOR:
            return None
        return PromptArrays(mask=noisy_mask(mask * np.uint8(255), rng=rng) > 0)


PROMPT = NoiseMaskPrompt("noise_mask", "mask", ("rle",), turn=1)
