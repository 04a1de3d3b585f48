"""Prompts from masks: boxes, points, noisy masks and noisy boxes, as in the official training code, with numpy.

Every random choice comes from the generator that is passed in.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.formats.images import FOREGROUND

BAND_THRESHOLD = 0.01
BAND_FACTOR = 8


def mask_box(mask: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """The box prompt: extreme pixels above 128, maxima inclusive.

    Args:
        mask: [H, W], values 0..255, integer or float.

    Returns:
        (x0, y0, x1, y1) in pixels, or None for an empty mask (the official code gives 1e8, 1e8, 0, 0).

    Source: SysCV/sam-hq, train/utils/misc.py, `masks_to_boxes`.
    """
    foreground = mask > FOREGROUND
    columns, rows = np.flatnonzero(foreground.any(axis=0)), np.flatnonzero(foreground.any(axis=1))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def sample_points(
    mask: NDArray[Any],
    *,
    n: int,
    rng: np.random.Generator | None = None,
    permutation: NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Point prompts: `n` random pixels above 128, uniform, without repetition; all positive.

    Args:
        mask: [H, W], values 0..255.
        n: points wanted; a mask with fewer candidates gives all of them, in random order.
        rng: draws the points.
        permutation: an order of the candidates (listed row by row) to use instead of drawing one.

    Returns:
        int64 [<= n, 2], (x, y) pixel indices.

    Source: SysCV/sam-hq, train/utils/misc.py, `masks_sample_points`.
    """
    width = mask.shape[1]
    candidates = np.flatnonzero(mask > FOREGROUND)
    if permutation is None:
        if rng is None:
            raise ValueError("give a generator or a permutation")
        permutation = rng.choice(len(candidates), size=min(n, len(candidates)), replace=False)
    chosen = candidates[np.asarray(permutation[:n], dtype=np.int64)]
    return np.stack([chosen % width, chosen // width], axis=1).astype(np.int64)


def boundary_band(mask: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels that are lost when the mask is reduced eightfold and enlarged again: a band about the boundary.

    Args:
        mask: float32 [H, W], 0..1; H and W at least 8.

    Returns:
        bool [H, W]: |mask - recovered| >= 0.01.

    Source: SysCV/sam-hq, train/utils/misc.py, `masks_noise` ("from Mask Transfiner").
    """
    height, width = mask.shape
    small = resize_bilinear(mask, height // BAND_FACTOR, width // BAND_FACTOR)
    recovered = resize_bilinear(small, height, width)
    return np.asarray(np.abs(mask - recovered) >= BAND_THRESHOLD)


def noisy_mask(
    mask: NDArray[Any], *, rng: np.random.Generator | None = None, noise: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """The mask prompt: Gaussian noise inside the boundary band, then threshold 0.5.

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
    shaken = grey + noise * boundary_band(grey)
    return np.where(shaken > 0.5, 255, 0).astype(np.uint8)


def noisy_box(
    box: tuple[float, float, float, float], *, scale: float, size: tuple[int, int], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Jitter a box as DN-DETR does: the centre by up to `scale` x half the size, the size by up to `scale` x itself.

    Args:
        box: xyxy in pixels.
        scale: 0 leaves the box as it is; the paper's robustness table uses 0.2 and 0.4.
        size: (height, width) of the picture; the result is clamped to [0, width] x [0, height].
        rng: draws four uniform numbers: centre x, y, width, height.

    Returns:
        xyxy in pixels.

    Source: SysCV/sam-hq, train/utils/misc.py, `box_noise`; paper, Table 13.
    """
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    shift_x, shift_y, grow_x, grow_y = rng.uniform(-1.0, 1.0, size=4) * scale
    centre_x = (x0 + x1) / 2 + shift_x * width / 2
    centre_y = (y0 + y1) / 2 + shift_y * height / 2
    half_width, half_height = width * (1 + grow_x) / 2, height * (1 + grow_y) / 2
    return (
        float(np.clip(centre_x - half_width, 0, size[1])),
        float(np.clip(centre_y - half_height, 0, size[0])),
        float(np.clip(centre_x + half_width, 0, size[1])),
        float(np.clip(centre_y + half_height, 0, size[0])),
    )


def resize_bilinear(values: NDArray[np.generic], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear resize without anti-aliasing, pixel centres aligned.

    Equal to torch's `F.interpolate(mode="bilinear", align_corners=False)` within 1e-2 of 255.

    Args:
        values: [H, W] or [H, W, C].
        height: rows of the result.
        width: columns of the result.

    Returns:
        float32 of the new size.
    """
    source = np.ascontiguousarray(values, dtype=np.float32)
    if source.shape[:2] == (height, width):
        return source
    return np.asarray(cv2.resize(source, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
