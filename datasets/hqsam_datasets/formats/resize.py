"""Resizing as the official training code does it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def resize_bilinear(values: NDArray[np.generic], height: int, width: int) -> NDArray[np.float32]:
    """Resize bilinearly without anti-aliasing, pixel centres aligned.

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
    return np.asarray(
        cv2.resize(source, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32
    )
