"""DAVIS region similarity J and contour accuracy F (Perazzi et al., CVPR 2016), and their statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from hqsam_metrics.masks.iou import Mask, mask_box

Float = NDArray[np.float64]
BOUND_TH = 0.008


def contour(mask: Mask) -> Mask:
    """Returns the DAVIS contour of a mask: bool [H, W].

    A pixel is contour when it differs from its right, lower or lower-right neighbour; in the last
    row from the right one only, in the last column from the lower one only, and the last corner
    never is. The image border is not a contour.
    """
    out = np.zeros_like(mask)
    out[:-1, :-1] = (mask[:-1, :-1] ^ mask[:-1, 1:]) | (mask[:-1, :-1] ^ mask[1:, :-1])
    out[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    out[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    out[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return out


@cache
def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk: NDArray[np.uint8] = (x * x + y * y <= radius * radius).astype(np.uint8)
    return disk


def bound_pixels(height: int, width: int, bound_th: float = BOUND_TH) -> int:
    """Returns the tolerance of F in pixels: the ratio of the image diagonal, rounded up."""
    return math.ceil(bound_th * math.sqrt(height * height + width * width))


def region_and_contour(
    *, pred: Mask, target: Mask, bound_th: float = BOUND_TH
) -> tuple[float, float]:
    """Returns J (IoU) and F (contour F-measure) of one object in one frame.

    Args:
        pred: bool [H, W].
        target: bool [H, W].
        bound_th: tolerance of F as a fraction of the diagonal.

    Returns:
        J and F, 0..1; both are 1 when both masks are empty.

    Raises:
        ValueError: sizes differ.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred {pred.shape} and target {target.shape} differ in size")
    boxes = [box for box in (mask_box(pred), mask_box(target)) if box is not None]
    if not boxes:
        return 1.0, 1.0
    x0, y0 = (max(0, min(box[k] for box in boxes) - 1) for k in (0, 1))
    x1, y1 = (max(box[k] for box in boxes) + 1 for k in (2, 3))
    # Everything that decides J and F lies in the region: contours end one pixel outside the masks,
    # and only contour pixels are looked up in the dilated contours.
    a, b = pred[y0:y1, x0:x1], target[y0:y1, x0:x1]
    union = int(np.count_nonzero(a | b))
    j = int(np.count_nonzero(a & b)) / union
    a, b = contour(a), contour(b)
    n_a, n_b = int(np.count_nonzero(a)), int(np.count_nonzero(b))
    if not n_a or not n_b:
        return j, float(n_a == n_b)
    disk = _disk(bound_pixels(pred.shape[0], pred.shape[1], bound_th))
    near_a, near_b = (cv2.dilate(c.view(np.uint8), disk).view(np.bool_) for c in (a, b))
    precision = int(np.count_nonzero(a & near_b)) / n_a
    recall = int(np.count_nonzero(b & near_a)) / n_b
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True)
class Statistics:
    """DAVIS statistics of the frames of one object: mean, recall (fraction above 0.5), decay."""

    mean: float
    recall: float
    decay: float


def statistics(values: Float) -> Statistics:
    """Returns the DAVIS statistics of per-frame values.

    Decay is the mean of the first quarter minus that of the last; the quarters share their end
    frames. (The official program keeps the cut points in 8 bits and is wrong from 256 frames on;
    this is not.)

    Args:
        values: float64 [n], at least one frame.
    """
    n = len(values)
    cuts = np.round(np.linspace(1, n, 5) + 1e-10).astype(np.int64) - 1
    first, last = values[cuts[0] : cuts[1] + 1], values[cuts[3] : cuts[4] + 1]
    return Statistics(
        float(np.mean(values)), float(np.mean(values > 0.5)), float(np.mean(first) - np.mean(last))
    )
