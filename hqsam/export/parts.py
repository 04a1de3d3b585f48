"""The two halves of a model as modules with tensors in and tensors out, ready for ``torch.export``.

Shape letters: B images; P prompts; N points of a prompt; S input side; C decoder width; V early
width; E embedding side; m side of low-resolution masks; H, W original image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqsam.api.predictor import decode
from hqsam.model.hq_decoder import Prompts
from hqsam.model.hq_sam import Encoded, HQSam
from hqsam.model.outputs import Output, OutputName

Part = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class DecoderOptions:
    """What a decoder file computes.

    Attributes:
        output: ``hq_sum`` SAM + HQ logits, ``hq_token`` the HQ token alone, ``sam`` vanilla SAM.
        multimask: The best of SAM's three masks instead of its single one.
        low_res_only: Leave out the masks of the original size, which for hundreds of prompts on a
            large image do not fit into memory.
    """

    output: OutputName = "hq_sum"
    multimask: bool = False
    low_res_only: bool = False

    @property
    def needs_early(self) -> bool:
        """Whether the early feature is an input: SAM alone does not look at it."""
        return self.output != Output.sam


class EncoderPart(nn.Module):
    """``image [B,3,S,S]``, normalised and padded (``HQSam.preprocess``), to final ``[B,C,E,E]`` and early ``[B,V,E,E]``."""

    def __init__(self, model: HQSam) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Encode."""
        encoded = self.model.encode(image)
        return encoded.final_BCHW, encoded.early_BVHW


class DecoderPart(nn.Module):
    """Features of one image and P prompts to masks, in the convention of ``segment_anything``'s own ONNX decoder.

    A prompt is a list of labelled points in the frame of the input square: 1 foreground, 0
    background, 2 and 3 the corners of a box, -1 padding. A prompt without a box ends with one
    padding point, as ``SamPredictor`` adds it. Prompts of different length are padded with further
    ones, which moves the logits a little, in SAM as here.
    """

    def __init__(self, model: HQSam, options: DecoderOptions) -> None:
        super().__init__()
        self.model = model
        self.options = options

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Decode ``decoder_inputs``: masks (unless left out), predicted IoUs, low-resolution logits."""
        values = dict(zip(decoder_inputs(self.options), inputs, strict=True))
        final = values["image_embeddings"]
        early = values.get("early_features", final)
        # The mask input is embedded where there is one, else SAM's embedding of none is taken:
        # [P, C, E, E].
        encoder = self.model.sam.prompt_encoder
        given = values["has_mask_input"][:, None, None, None]
        masks = encoder.mask_downscaling(values["mask_input"])
        dense = given * masks + (1 - given) * encoder.no_mask_embed.weight[:, :, None, None]
        prompts = Prompts(self._sparse(values["point_coords"], values["point_labels"]), dense)
        found = decode(
            self.model,
            Encoded(final, early),
            prompts,
            self.options.output,
            multimask=self.options.multimask,
        )
        if self.options.low_res_only:
            return found.iou_PK, found.logits_PKhw
        size = self.model.backbone.image_size
        whole = upscale(found.logits_PKhw, values["orig_im_size"], size)
        return whole, found.iou_PK, found.logits_PKhw

    def _sparse(self, xy_PN2: Tensor, labels_PN: Tensor) -> Tensor:
        """Embed points and boxes in one, by label, as ``PromptEncoder`` does; ``[P,N,C]``."""
        encoder = self.model.sam.prompt_encoder
        position = encoder.pe_layer._pe_encoding((xy_PN2 + 0.5) / self.model.backbone.image_size)
        kinds_5C = torch.cat(
            [encoder.not_a_point_embed.weight, *(e.weight for e in encoder.point_embeddings)]
        )
        labels = labels_PN.to(torch.int64)
        # An index past the table on purpose: a label below -1 must fail, not count from the end of
        # the table.
        kind = kinds_5C[torch.where(labels < -1, len(kinds_5C), labels + 1)]
        return torch.where((labels == -1)[..., None], kind, position + kind)


def decoder_inputs(options: DecoderOptions) -> tuple[str, ...]:
    """Return names of a decoder file's inputs, in order."""
    early = ("early_features",) if options.needs_early else ()
    size = () if options.low_res_only else ("orig_im_size",)
    return (
        "image_embeddings",
        *early,
        "point_coords",
        "point_labels",
        "mask_input",
        "has_mask_input",
        *size,
    )


def decoder_outputs(options: DecoderOptions) -> tuple[str, ...]:
    """Return names of a decoder file's outputs, in order."""
    masks = () if options.low_res_only else ("masks",)
    return *masks, "iou_predictions", "low_res_masks"


def upscale(low_P1mm: Tensor, size_2: Tensor, side: int) -> Tensor:
    """Compute ``Sam.postprocess_masks`` for a size that is known only when the file runs.

    Args:
        low_P1mm: Low-resolution logits.
        size_2: (H, W) of the original image.
        side: S.

    Returns:
        Logits ``[P,1,H,W]``.
    """
    square = functional.interpolate(low_P1mm, (side, side), mode="bilinear", align_corners=False)
    exact = size_2.double()
    # A division of tensors: `side / tensor` is computed as a product with the reciprocal, and may
    # round to another pixel.
    resized = (
        torch.floor(exact * (torch.full_like(exact, side) / exact.max()) + 0.5)
        .clamp(min=1)
        .to(torch.int64)
    )
    rows = _stretch(square, 2, resized[0], size_2[0])
    return _stretch(rows, 3, resized[1], size_2[1])


def _stretch(x: Tensor, dim: int, used: Tensor, wanted: Tensor) -> Tensor:
    """Resize bilinearly along one axis whose first ``used`` positions count.

    Float32 as ``interpolate`` computes.
    """
    length = cast(
        int, wanted.to(torch.int64).item()
    )  # `int()` would make it a constant of the graph
    torch._check(length >= 1)  # type: ignore[no-untyped-call]
    scale = used.float() / wanted.float()
    source = (scale * (torch.arange(length, dtype=torch.float32) + 0.5) - 0.5).clamp(min=0)
    low = torch.minimum(source.to(torch.int64), used - 1)
    high = torch.minimum(low + 1, used - 1)
    t = (source - low).view(-1, *[1] * (3 - dim))
    stretched: Tensor = x.index_select(dim, low) * (1 - t) + x.index_select(dim, high) * t
    return stretched
