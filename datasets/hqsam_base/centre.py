"""The middle of a mask: the pixel that is farthest from its boundary."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def centre_point(mask: NDArray[np.bool_]) -> tuple[tuple[int, int], float] | None:
    """Find the pixel of a mask that is farthest from the background, and how far that is.

    Outside the image is background. Of equally far pixels the first in row-major order: smallest y,
    then smallest x.

    Args:
        mask: bool [H, W].

    Returns:
        (x, y) and the Euclidean distance in pixels, None for an empty mask.
    """
    if not mask.any():
        return None
    padded = np.pad(mask, 1).view(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    return (int(x), int(y)), float(distance[y, x])
