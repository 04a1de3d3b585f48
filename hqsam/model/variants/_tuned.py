"""Copies of SAM's own parts that train, in the shape that the decoding pass expects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from hqsam.model.variants._parts import trainable_copy

_OUTPUT = 0  # SAM's mask token for single-mask output: its mask is trained


class TunedDecoder(nn.Module):
    """Everything in SAM's mask decoder that its single mask depends on; parameter names are SAM's.

    The IoU head and the MLPs of the three multimask tokens are not here: no gradient of a mask loss
    reaches them, so they stay SAM's.

    Args:
        decoder: ``segment_anything`` ``MaskDecoder``.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.transformer = trainable_copy(decoder.transformer)
        self.iou_token = trainable_copy(decoder.iou_token)
        self.mask_tokens = trainable_copy(decoder.mask_tokens)
        self.output_upscaling = trainable_copy(decoder.output_upscaling)
        self.output_hypernetworks_mlps = nn.ModuleList(
            [trainable_copy(decoder.output_hypernetworks_mlps[_OUTPUT])]
        )

    def view(self, decoder: Any) -> SimpleNamespace:
        """Return this decoder with the rest from ``decoder``."""
        return view(
            decoder,
            transformer=self.transformer,
            iou_token=self.iou_token,
            mask_tokens=self.mask_tokens,
            output_upscaling=self.output_upscaling,
            output_mlp=self.output_hypernetworks_mlps[0],
        )


def view(decoder: Any, *, output_mlp: nn.Module, **tuned: Any) -> SimpleNamespace:
    """Return the attributes of a mask decoder that decoding uses, some of them tuned.

    Args:
        decoder: Where the others come from.
        output_mlp: The tuned MLP of the single-mask token.
        tuned: Any of transformer, iou_token, mask_tokens, output_upscaling.
    """
    names = ("transformer", "iou_token", "mask_tokens", "output_upscaling")
    parts = {name: tuned.get(name, getattr(decoder, name)) for name in names}
    return SimpleNamespace(
        **parts,
        num_multimask_outputs=decoder.num_multimask_outputs,
        output_hypernetworks_mlps=[output_mlp, *decoder.output_hypernetworks_mlps[_OUTPUT + 1 :]],
        iou_prediction_head=decoder.iou_prediction_head,
    )
