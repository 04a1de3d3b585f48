"""The validation curve: SAM and HQ-SAM on the held-out slice of the training samples.

As on the HQ benchmarks: the whole image stretched to the network's size, a box prompt from the
ground truth, masks compared at the image's own size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hqsam.model.hq_decoder import Prompts
from hqsam.model.hq_sam import Encoded, HQSam
from hqsam.model.outputs import Output
from hqsam.training.loader import TrainingSet
from hqsam_metrics.masks.iou import boundary_iou, mask_iou


@dataclass(frozen=True)
class _Case:
    image: NDArray[np.uint8]
    box: NDArray[np.float32]
    truth: NDArray[np.bool_]


def _case(data: TrainingSet, number: int, size: int) -> _Case | None:
    sample = data.sample(number)
    mask = sample.instances[0].mask
    image, small = (
        cv2.resize(a, (size, size), interpolation=cv2.INTER_LINEAR) for a in (sample.image, mask)
    )
    ys, xs = np.nonzero(small > 128)
    if not len(ys):
        return None
    box = np.array([xs.min(), ys.min(), xs.max(), ys.max()], np.float32)
    return _Case(np.asarray(image, np.uint8), box, mask > 128)


class Validation:
    """Holds the slice and, for a frozen encoder, its features; `scores` runs the decoders.

    Vanilla SAM is scored once, at the beginning: it does not change.

    Args:
        data: the training set.
        numbers: samples of the slice.
        model: used to encode them once.
        batch: images per encoder call.
    """

    def __init__(
        self, data: TrainingSet, numbers: Sequence[int], model: HQSam, *, batch: int
    ) -> None:
        found = (_case(data, n, model.backbone.image_size) for n in numbers)
        self.cases = [c for c in found if c is not None]
        self._chunks = [self.cases[i : i + batch] for i in range(0, len(self.cases), batch)]
        self._encoded = [self._encode(model, chunk) for chunk in self._chunks]
        self._sam = self._means(
            model, lambda e, p: {Output.sam.value: model.decode_sam(e, p).logits_PKhw}, vanilla=True
        )

    @staticmethod
    @torch.inference_mode()
    def _encode(model: HQSam, cases: Sequence[_Case]) -> Encoded:
        images = torch.from_numpy(np.stack([c.image for c in cases])).permute(0, 3, 1, 2)
        return model.encode(model.preprocess(images))

    def scores(self, model: HQSam) -> dict[str, float]:
        """Mean IoU and boundary IoU (ratio 0.02) of the HQ token, of the sum, and of SAM; {} without cases."""

        def decode(encoded: Encoded, prompts: Prompts) -> dict[str, Tensor]:
            hq = model.decode_hq(encoded, prompts)
            return {Output.hq_token.value: hq.hq_P1hw, Output.hq_sum.value: hq.sum_P1hw}

        return self._sam | self._means(model, decode)

    @torch.inference_mode()
    def _means(
        self,
        model: HQSam,
        decode: Callable[[Encoded, Prompts], dict[str, Tensor]],
        *,
        vanilla: bool = False,
    ) -> dict[str, float]:
        rows: dict[str, list[tuple[float, float]]] = {}
        for encoded, cases in zip(self._encoded, self._chunks, strict=True):
            if (
                model.head.changes_encoder and not vanilla
            ):  # it is not what it was when the slice was encoded
                encoded = self._encode(model, cases)
            boxes = torch.from_numpy(np.stack([c.box for c in cases])).to(model.device)
            for name, logits in decode(encoded, model.embed_prompts(boxes_P4=boxes)).items():
                rows.setdefault(name, []).extend(
                    compare(v, c.truth) for v, c in zip(logits, cases, strict=True)
                )
        return {
            f"{name}_{metric}": float(np.nanmean([pair[k] for pair in pairs]))
            for name, pairs in sorted(rows.items())
            for k, metric in enumerate(("mIoU", "mBIoU"))
        }


def compare(logits_1hw: Tensor, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """IoU and boundary IoU (ratio 0.02) at the truth's size.

    Args:
        logits_1hw: of the network, any size; enlarged bilinearly, foreground above 0.
        truth: bool ``[H, W]``.
    """
    large = functional.interpolate(
        logits_1hw[None], truth.shape, mode="bilinear", align_corners=False
    )
    pred = (large[0, 0] > 0).cpu().numpy()
    return mask_iou(pred=pred, target=truth), boundary_iou(pred=pred, target=truth)
