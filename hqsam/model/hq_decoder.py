"""The HQ part of HQ-SAM and the decoding pass that it shares with SAM's own mask decoder.

Source: Segment Anything in High Quality (arXiv 2306.01567), sections 3.1-3.2; parameter names and layer
shapes as in the published checkpoints, so that their ``mask_decoder.*`` keys load without renaming.

SAM's mask decoder is used as installed and stays frozen: this module runs its transformer with one token
more.

Shape letters: P prompts; B images; C decoder width (256); F = C / 8; V width of the early ViT feature; T
tokens; H, W side of the image embedding; h = 4H, w = 4W side of the low-resolution masks.
"""

# ruff: noqa: N815 -- shape suffixes are the house style, attributes included
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqsam.model.sam_api import MLP, LayerNorm2d

HQ_PREFIXES = ("hf_token.", "hf_mlp.", "compress_vit_feat.", "embedding_encoder.", "embedding_maskfeature.")


class HQHead(nn.Module):
    """The HQ-Output token, its MLP and the global-local feature fusion: all that HQ-SAM trains.

    Its ``state_dict`` keys are those of the published decoder (``hf_token.weight``,
    ``hf_mlp.layers.0.weight``, ...). Initialisation is PyTorch's default, as in the official training code.
    """

    def __init__(self, *, decoder_dim: int, vit_dim: int) -> None:
        super().__init__()
        c, f = decoder_dim, decoder_dim // 8
        self.hf_token = nn.Embedding(1, c)
        self.hf_mlp = MLP(c, c, f, 3)
        self.compress_vit_feat = nn.Sequential(
            nn.ConvTranspose2d(vit_dim, c, kernel_size=2, stride=2),
            LayerNorm2d(c),
            nn.GELU(),
            nn.ConvTranspose2d(c, f, kernel_size=2, stride=2),
        )
        self.embedding_encoder = nn.Sequential(
            nn.ConvTranspose2d(c, c // 4, kernel_size=2, stride=2),
            LayerNorm2d(c // 4),
            nn.GELU(),
            nn.ConvTranspose2d(c // 4, f, kernel_size=2, stride=2),
        )
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(f, c // 4, 3, 1, 1),
            LayerNorm2d(c // 4),
            nn.GELU(),
            nn.Conv2d(c // 4, f, 3, 1, 1),
        )

    def fuse(self, *, final_BCHW: Tensor, early_BVHW: Tensor) -> Tensor:
        """The prompt-independent part of the HQ feature: final and early image features at mask size.

        Args:
            final_BCHW: Output of the image encoder.
            early_BVHW: Output of the first global-attention block.

        Returns:
            ``[B,F,h,w]``.
        """
        fused: Tensor = self.embedding_encoder(final_BCHW) + self.compress_vit_feat(early_BVHW)
        return fused

    def mask_logits(self, *, token_PC: Tensor, upscaled_PFhw: Tensor, fused_BFhw: Tensor) -> Tensor:
        """HQ mask logits: the token's MLP output times (mask feature + fused feature).

        The published form makes the mask feature with a last 3x3 convolution to F channels and then takes the
        dot product with the token. Both are linear, so the token is multiplied into the kernel first: one
        output channel instead of F, the same logits up to rounding.

        Args:
            token_PC: HQ token after the transformer.
            upscaled_PFhw: SAM's upscaled mask feature.
            fused_BFhw: Output of ``fuse``, B = P or B = 1 (one image for all prompts).

        Returns:
            ``[P,1,h,w]`` logits; a mask is logit > 0.
        """
        weights_PF = self.hf_mlp(token_PC)
        last = cast(nn.Conv2d, self.embedding_maskfeature[-1])
        feature_PDhw = self.embedding_maskfeature[:-1](upscaled_PFhw)
        local_P1hw = _conv3x3_per_prompt(feature_PDhw, last, weights_PF)
        return local_P1hw + _dot(weights_PF[:, None], fused_BFhw)


def _dot(weights_PKF: Tensor, feature_BFhw: Tensor) -> Tensor:
    """Dot products over channels: ``[P,K,F]`` times ``[P or 1,F,h,w]`` to ``[P,K,h,w]``."""
    h, w = feature_BFhw.shape[-2:]
    flat_BFn = feature_BFhw.flatten(2)
    right = flat_BFn[0] if len(flat_BFn) == 1 else flat_BFn
    return torch.unflatten(weights_PKF @ right, -1, (h, w))


def _conv3x3_per_prompt(feature_PDhw: Tensor, conv: nn.Conv2d, weights_PF: Tensor) -> Tensor:
    """``weights . conv3x3(feature)`` with the weights folded into the kernel, each prompt having its own.

    Args:
        feature_PDhw: Input of the convolution.
        conv: From D to F channels, padding 1, with bias.
        weights_PF: What its output would be multiplied with.

    Returns:
        ``[P,1,h,w]``.
    """
    p, d, h, w = feature_PDhw.shape
    kernel_P9D = torch.einsum("pf,fdij->pijd", weights_PF, conv.weight).reshape(p, 9, d)
    taps_P9hw = (kernel_P9D @ feature_PDhw.flatten(2)).view(p, 9, h, w)
    padded = functional.pad(taps_P9hw, (1, 1, 1, 1))
    out_Phw = sum(padded[:, 3 * i + j, i : i + h, j : j + w] for i in range(3) for j in range(3))
    return (out_Phw + (weights_PF @ cast(Tensor, conv.bias))[:, None, None]).unsqueeze(1)


@dataclass(frozen=True)
class Prompts:
    """Embedded prompts, as SAM's prompt encoder returns them.

    Attributes:
        sparse_PTC: Points and boxes.
        dense_PCHW: Mask prompts; ``[1,C,H,W]`` when none of the prompts has a mask (it is then the same for
            all).
    """

    sparse_PTC: Tensor
    dense_PCHW: Tensor


@dataclass(frozen=True)
class TokenOutput:
    """What the two-way transformer leaves behind.

    Attributes:
        tokens_PTC: The output tokens in order: IoU, SAM's mask tokens, then extra tokens.
        upscaled_PFhw: SAM's upscaled mask feature.
    """

    tokens_PTC: Tensor
    upscaled_PFhw: Tensor


def run_transformer(
    decoder: Any, *, image_BCHW: Tensor, pe_1CHW: Tensor, prompts: Prompts, extra_KC: Tensor | None = None
) -> TokenOutput:
    """Run SAM's two-way transformer and upscaling, optionally with extra output tokens.

    When all prompts look at one image and none brings a mask, image and dense embedding stay at batch 1 until
    the first cross-attention, which broadcasts: the projections of the image are then computed once, not once
    per prompt.

    Args:
        decoder: ``segment_anything`` ``MaskDecoder``.
        image_BCHW: Image embeddings, B = P (each prompt its own image) or B = 1.
        pe_1CHW: Dense positional encoding.
        prompts: P embedded prompts.
        extra_KC: Tokens to append after SAM's mask tokens (the HQ token).

    Returns:
        Tokens and upscaled feature.
    """
    own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
    output_TC = torch.cat(own if extra_KC is None else [*own, extra_KC])
    p = prompts.sparse_PTC.shape[0]
    tokens = torch.cat((output_TC.expand(p, -1, -1), prompts.sparse_PTC), dim=1)
    source = image_BCHW + prompts.dense_PCHW
    h, w = source.shape[-2:]
    hidden, source_PnC = decoder.transformer(source, pe_1CHW, tokens)
    upscaled = decoder.output_upscaling(torch.unflatten(source_PnC.transpose(1, 2), 2, (h, w)))
    return TokenOutput(tokens_PTC=hidden[:, : len(output_TC)], upscaled_PFhw=upscaled)


@dataclass(frozen=True)
class SamMasks:
    """SAM's own prediction.

    Attributes:
        logits_PKhw: Low-resolution mask logits; K = 1 (single mask) or 3 (multimask).
        iou_PK: Predicted IoU of each.
    """

    logits_PKhw: Tensor
    iou_PK: Tensor


def sam_masks(decoder: Any, output: TokenOutput, *, multimask: bool) -> SamMasks:
    """SAM's masks and predicted IoUs from the transformer's output; equal to ``MaskDecoder.forward``.

    Args:
        decoder: ``segment_anything`` ``MaskDecoder``.
        output: Of ``run_transformer``.
        multimask: The three masks for ambiguous prompts instead of the single one.

    Returns:
        Only the masks asked for are computed.
    """
    wanted = range(1, decoder.num_multimask_outputs + 1) if multimask else range(1)
    weights_PKF = torch.stack(
        [decoder.output_hypernetworks_mlps[k](output.tokens_PTC[:, 1 + k]) for k in wanted], dim=1
    )
    iou = decoder.iou_prediction_head(output.tokens_PTC[:, 0])
    return SamMasks(_dot(weights_PKF, output.upscaled_PFhw), iou[:, wanted.start : wanted.stop])


def best_mask(masks: SamMasks) -> SamMasks:
    """The mask with the highest predicted IoU of each prompt: HQ-SAM's rule for multimask output."""
    if masks.iou_PK.shape[1] == 1:
        return masks
    best_P1 = masks.iou_PK.argmax(dim=1, keepdim=True)
    index = best_P1[..., None, None].expand(-1, -1, *masks.logits_PKhw.shape[-2:])
    return SamMasks(masks.logits_PKhw.gather(1, index), masks.iou_PK.gather(1, best_P1))
