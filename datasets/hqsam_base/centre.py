"""The middle of a mask, and the next click of interactive segmentation: the middle of the largest error."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]


def centre_point(mask: BoolMask) -> tuple[tuple[int, int], float] | None:
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


def next_click(*, pred: BoolMask, target: BoolMask) -> tuple[tuple[int, int], bool] | None:
    """Find the click that corrects the largest error (sam2, `sample_one_point_from_error_center`).

    Args:
        pred: bool [H, W], all background before the first click.
        target: bool [H, W].

    Returns:
        (x, y) and whether it is a positive click; None when nothing is wrong. Of equally deep
        errors the negative one.

    Raises:
        ValueError: sizes differ.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred {pred.shape} and target {target.shape} differ in size")
    missed, extra = centre_point(target & ~pred), centre_point(pred & ~target)
    if missed is not None and (extra is None or missed[1] > extra[1]):
        return missed[0], True
    return None if extra is None else (extra[0], False)
