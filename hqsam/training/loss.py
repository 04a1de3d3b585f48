"""The mask loss of HQ-SAM's training: PointRend-style sampling, binary cross-entropy and Dice at weights 1 : 1.

Source: paper section 3.3 and the supplement; SysCV/sam-hq ``train/utils/loss_mask.py``, whose
numbers are the golden data of ``tests/golden/hqsam_train``. Logits and labels may have different
sizes: both are read at the same relative places, nothing is resized.

Shape letters: B masks; K points; h, w logits; H, W labels.
"""

# ruff: noqa: N815 -- shape suffixes are the house style, attributes included

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class MaskLoss:
    """Scalar losses: mean over masks."""

    bce: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, the quantity that is minimised."""
        return self.bce + self.dice


def sample_points(field_B1HW: Tensor, points_BK2: Tensor) -> Tensor:
    """Read a field at points by bilinear interpolation; outside it is zero, also for border interpolation.

    Args:
        field_B1HW: Logits or labels, float32.
        points_BK2: (x, y) in 0..1 of the image, pixel areas (``align_corners=False``).

    Returns:
        ``[B,K]``.
    """
    grid_BK12 = 2 * points_BK2.unsqueeze(2) - 1
    sampled_B1K1 = functional.grid_sample(
        field_B1HW, grid_BK12, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled_B1K1[:, 0, :, 0]


def most_uncertain(logits_B1hw: Tensor, candidates_BN2: Tensor, n: int) -> Tensor:
    """The `n` candidate points per mask whose logit is nearest to zero: ``[B,n,2]``."""
    uncertainty_BN = -sample_points(logits_B1hw, candidates_BN2).abs()
    index_Bn = uncertainty_BN.topk(n, dim=1).indices
    return candidates_BN2.gather(1, index_Bn.unsqueeze(-1).expand(-1, -1, 2))


@dataclass(frozen=True)
class Draw:
    """Random places from which the loss points of B masks are taken; (x, y) in 0..1.

    Attributes:
        candidates_BN2: for the choice by uncertainty.
        uniform_BM2: taken as they are.
        n_uncertain: how many of the candidates are taken.
    """

    candidates_BN2: Tensor
    uniform_BM2: Tensor
    n_uncertain: int

    def __getitem__(self, masks: slice) -> Draw:
        """The part for some of the masks."""
        return Draw(self.candidates_BN2[masks], self.uniform_BM2[masks], self.n_uncertain)

    def points(self, logits_B1hw: Tensor) -> Tensor:
        """``[B,K,2]``: the most uncertain candidates, and the uniform ones. No gradient flows."""
        with torch.no_grad():
            uncertain_Bn2 = most_uncertain(
                logits_B1hw.detach(), self.candidates_BN2, self.n_uncertain
            )
        return torch.cat([uncertain_Bn2, self.uniform_BM2], dim=1)


def draw(
    n_masks: int,
    *,
    n_points: int,
    generator: torch.Generator,
    device: torch.device,
    oversample: float = 3.0,
    importance: float = 0.75,
) -> Draw:
    """Draw the random places for a batch.

    Args:
        n_masks: B.
        n_points: K, points per mask.
        generator: CPU generator, so that the draws are the same on every device.
        device: of the result.
        oversample: Candidates per point wanted.
        importance: Share of the points taken by uncertainty.
    """
    n_uncertain = int(importance * n_points)
    candidates_BN2 = torch.rand(n_masks, int(oversample * n_points), 2, generator=generator).to(
        device
    )
    uniform_BM2 = torch.rand(n_masks, n_points - n_uncertain, 2, generator=generator).to(device)
    return Draw(candidates_BN2, uniform_BM2, n_uncertain)


def draw_points(
    logits_B1hw: Tensor,
    *,
    n_points: int,
    generator: torch.Generator,
    oversample: float = 3.0,
    importance: float = 0.75,
) -> Tensor:
    """Points for the loss: the most uncertain of an oversampled draw, the rest uniform.

    Args:
        logits_B1hw: Predicted logits; no gradient flows through the choice.
        n_points: K.
        generator: See `draw`.
        oversample: See `draw`.
        importance: See `draw`.

    Returns:
        ``[B,K,2]``, (x, y) in 0..1.
    """
    drawn = draw(
        len(logits_B1hw),
        n_points=n_points,
        generator=generator,
        device=logits_B1hw.device,
        oversample=oversample,
        importance=importance,
    )
    return drawn.points(logits_B1hw)


def bce_per_mask(logits_BK: Tensor, labels_BK: Tensor) -> Tensor:
    """Binary cross-entropy with logits, mean over points: ``[B]``. Labels in 0..1, in-between values count."""
    return functional.binary_cross_entropy_with_logits(logits_BK, labels_BK, reduction="none").mean(
        1
    )


def dice_per_mask(logits_BK: Tensor, labels_BK: Tensor) -> Tensor:
    """Dice loss ``1 - (2 sum(s t) + 1) / (sum s + sum t + 1)`` with s = sigmoid(logit): ``[B]``."""
    s_BK = logits_BK.sigmoid()
    overlap_B = (s_BK * labels_BK).sum(1)
    return 1 - (2 * overlap_B + 1) / (s_BK.sum(1) + labels_BK.sum(1) + 1)


def boundary_region(labels_B1HW: Tensor, *, ratio: float = 0.02) -> Tensor:
    """Find where the label changes nearby, on both sides of a contour: 1 within `ratio` of the diagonal, else 0.

    Args:
        labels_B1HW: Soft labels in 0..1.
        ratio: Half width of the region, as a fraction of the image's diagonal; at least one pixel.
    """
    h, w = labels_B1HW.shape[-2:]
    reach = max(1, round(ratio * math.hypot(h, w)))
    binary = (labels_B1HW > 0.5).to(labels_B1HW.dtype)
    largest = _box_max(binary, reach)
    smallest = -_box_max(-binary, reach)
    return (largest > smallest).to(labels_B1HW.dtype)


def _box_max(x_B1HW: Tensor, reach: int) -> Tensor:
    """Maximum over squares of side 2 * reach + 1, one axis after the other."""
    rows = functional.max_pool2d(x_B1HW, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    return functional.max_pool2d(rows, (1, 2 * reach + 1), stride=1, padding=(0, reach))


def loss_at_points(
    logits_B1hw: Tensor,
    labels_B1HW: Tensor,
    points_BK2: Tensor,
    *,
    region_B1HW: Tensor | None = None,
) -> MaskLoss:
    """Both losses at given points, averaged over the masks.

    Args:
        logits_B1hw: Predicted logits.
        labels_B1HW: Soft labels in 0..1.
        points_BK2: (x, y) in 0..1.
        region_B1HW: Weights in 0..1 of the places; None: all count alike. A mask whose points all
            lie outside adds 0.
    """
    with torch.no_grad():
        labels_BK = sample_points(labels_B1HW, points_BK2)
        weights_BK = None if region_B1HW is None else sample_points(region_B1HW, points_BK2)
    logits_BK = sample_points(logits_B1hw, points_BK2)
    if weights_BK is None:
        return MaskLoss(
            bce_per_mask(logits_BK, labels_BK).mean(), dice_per_mask(logits_BK, labels_BK).mean()
        )
    cells_BK = functional.binary_cross_entropy_with_logits(logits_BK, labels_BK, reduction="none")
    bce_B = (cells_BK * weights_BK).sum(1) / weights_BK.sum(1).clamp(min=1)
    s_BK = logits_BK.sigmoid() * weights_BK
    t_BK = labels_BK * weights_BK
    dice_B = 1 - (2 * (s_BK * labels_BK).sum(1) + 1) / (s_BK.sum(1) + t_BK.sum(1) + 1)
    return MaskLoss(bce_B.mean(), dice_B.mean())


def mask_loss(
    logits_B1hw: Tensor,
    labels_B1HW: Tensor,
    *,
    n_points: int,
    generator: torch.Generator,
    oversample: float = 3.0,
    importance: float = 0.75,
) -> MaskLoss:
    """Draw points and compute the loss; see `draw_points` and `loss_at_points`."""
    points_BK2 = draw_points(
        logits_B1hw,
        n_points=n_points,
        generator=generator,
        oversample=oversample,
        importance=importance,
    )
    return loss_at_points(logits_B1hw, labels_B1HW, points_BK2)
