"""Non-maximum suppression without the compiled operator of torchvision, which not every build has."""

from __future__ import annotations

import torch
from torch import Tensor


def box_area(boxes_N4: Tensor) -> Tensor:
    """Areas of xyxy boxes, ``[N]``."""
    return (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])


def nms(boxes_N4: Tensor, scores_N: Tensor, iou_threshold: float) -> Tensor:
    """Keep the best-scored boxes that overlap no kept one by more than a threshold; ``torchvision.ops.nms``.

    Args:
        boxes_N4: xyxy.
        scores_N: Higher is better; equal scores keep their order.
        iou_threshold: Boxes with a larger IoU to a kept one go.

    Returns:
        Indices of the kept boxes, best first, int64.
    """
    order = scores_N.argsort(descending=True, stable=True)
    boxes, areas = boxes_N4.float()[order], box_area(boxes_N4.float())[order]
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for n in range(len(boxes)):
        if alive[n]:
            # Product instead of quotient: two boxes without area have no IoU, and neither
            # suppresses the other.
            low = torch.maximum(boxes[n, :2], boxes[n + 1 :, :2])
            high = torch.minimum(boxes[n, 2:], boxes[n + 1 :, 2:])
            common = (high - low).clamp(min=0).prod(dim=1)
            alive[n + 1 :] &= common <= iou_threshold * (areas[n] + areas[n + 1 :] - common)
    return order[alive]
