"""The metrics of CascadePSP for BIG: pooled IoU and mean boundary accuracy (Cheng et al., CVPR 2020).

Not to be compared with mIoU and mBIoU: the IoU is pooled over the set, the accuracy counts
background pixels too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from hqsam_metrics.masks.iou import Mask, mask_box

_STEPS = 5


@dataclass(frozen=True)
class Cascade:
    """Counts of some masks; `+` joins disjoint sets.

    Attributes:
        intersection: pixels.
        union: pixels.
        accuracies: boundary accuracy of each mask by key, NaN where the ground truth has no
            boundary.
    """

    intersection: int
    union: int
    accuracies: tuple[tuple[str, float], ...]

    def __add__(self, other: Cascade) -> Cascade:
        """Joins the counts."""
        return Cascade(
            self.intersection + other.intersection,
            self.union + other.union,
            self.accuracies + other.accuracies,
        )

    @property
    def iou(self) -> float | None:
        """Sum of intersections over sum of unions, None when both are 0."""
        return self.intersection / self.union if self.union else None

    @property
    def mba(self) -> float | None:
        """Mean boundary accuracy over the masks where it is defined, None without one."""
        values = [value for _, value in sorted(self.accuracies) if not np.isnan(value)]
        return float(np.mean(values)) if values else None


def radii(height: int, width: int) -> list[int]:
    """Returns the five radii in pixels, from 1 towards (height + width) / 300."""
    largest = (width + height) / 300
    return [1 + int((largest - 1) / _STEPS * step) for step in range(_STEPS)]


def boundary_accuracy(*, pred: Mask, target: Mask) -> float:
    """Returns the mean over five radii of the pixel accuracy near the boundary of the ground truth.

    Near means within the morphological gradient of the ground truth by OpenCV's ellipse of that
    radius (CascadePSP, util/compute_boundary_acc.py). Computed in the ground truth's box enlarged
    by the largest radius: outside it the gradient is 0.

    Args:
        pred: bool [H, W].
        target: bool [H, W].

    Returns:
        0..1, NaN when the ground truth has no boundary (empty or full).

    Raises:
        ValueError: sizes differ.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred {pred.shape} and target {target.shape} differ in size")
    box = mask_box(target)
    if box is None:
        return float("nan")
    height, width = target.shape
    sizes = radii(height, width)
    margin = max(sizes) + 1
    rows = slice(max(0, box[1] - margin), box[3] + margin)
    columns = slice(max(0, box[0] - margin), box[2] + margin)
    gt = np.ascontiguousarray(target[rows, columns]).view(np.uint8)
    same = pred[rows, columns] == target[rows, columns]
    values = []
    for radius in sizes:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        near = cv2.morphologyEx(gt, cv2.MORPH_GRADIENT, kernel) > 0
        count = int(np.count_nonzero(near))
        if not count:
            return float("nan")
        values.append(int(np.count_nonzero(same & near)) / count)
    return float(np.mean(values))


def measure(*, key: str, pred: Mask, target: Mask) -> Cascade:
    """Returns the counts of one mask."""
    both = int(np.count_nonzero(pred & target))
    either = int(np.count_nonzero(pred | target))
    return Cascade(both, either, ((key, boundary_accuracy(pred=pred, target=target)),))


def total(parts: Iterable[Cascade]) -> Cascade:
    """Joins the counts of all masks."""
    rows = list(parts)
    accuracies = tuple(entry for part in rows for entry in part.accuracies)
    return Cascade(
        sum(part.intersection for part in rows), sum(part.union for part in rows), accuracies
    )
