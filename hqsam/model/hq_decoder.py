"""The HQ part of HQ-SAM and the decoding pass that it shares with SAM's own mask decoder.

Source: Segment Anything in High Quality (arXiv 2306.01567), sections 3.1-3.2; parameter names and
layer shapes as in the published checkpoints, so that their ``mask_decoder.*`` keys load without
renaming.

SAM's mask decoder is used as installed and stays frozen: this module runs its transformer with one
token more.

Shape letters: P prompts; B images; C decoder width (256); F = C / 8; V width of the early ViT
feature; T tokens; H, W side of the image embedding; h = 4H, w = 4W side of the low-resolution
masks.
"""

# ruff: noqa: N815 -- shape suffixes are the house style, attributes included
from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqsam.model.backbones.base import Backbone
from hqsam.model.head import Head, TokenOutput
from hqsam.model.sam_api import MLP, LayerNorm2d
from hqsam.model.two_way import two_way

Source = Literal["early", "final", "mask"]

_STRIP = 32  # rows of a mask-sized map that are computed together on a CPU: 1 to 2 MB
HQ_PREFIXES = (
    "hf_token.",
    "hf_mlp.",
    "compress_vit_feat.",
    "embedding_encoder.",
    "embedding_maskfeature.",
)


class TokenHead(Head):
    """The HQ-Output token and its MLP on SAM's mask feature as it is: the least that predicts a mask of its own."""

    def __init__(self, *, decoder_dim: int) -> None:
        super().__init__()
        self.hf_token = nn.Embedding(1, decoder_dim)
        self.hf_mlp = MLP(decoder_dim, decoder_dim, decoder_dim // 8, 3)

    @classmethod
    def of(cls, backbone: Backbone) -> Self:
        """See ``Head.of``."""
        return cls(decoder_dim=backbone.decoder_dim)

    def extra_tokens(self) -> Tensor:
        """The HQ token ``[1,C]``."""
        return self.hf_token.weight

    def hq_logits(self, *, output: TokenOutput, fused_BFhw: Tensor) -> Tensor:
        """Dot product of the token's MLP output with SAM's mask feature."""
        return dot_channels(self.hf_mlp(output.tokens_PTC[:, -1])[:, None], output.upscaled_PFhw)


class HQHead(TokenHead):
    """The HQ-Output token, its MLP and the global-local feature fusion: all that HQ-SAM trains.

    Its ``state_dict`` keys are those of the published decoder (``hf_token.weight``,
    ``hf_mlp.layers.0.weight``, ...). Initialisation is PyTorch's default, as in the official
    training code.

    Args:
        decoder_dim: C.
        vit_dim: V.
        sources: What is fused: the early and the final image feature and SAM's mask feature; fewer
            for the paper's Table 3.
    """

    def __init__(
        self,
        *,
        decoder_dim: int,
        vit_dim: int,
        sources: tuple[Source, ...] = ("early", "final", "mask"),
    ) -> None:
        super().__init__(decoder_dim=decoder_dim)
        c, f = decoder_dim, decoder_dim // 8
        if "early" in sources:
            self.compress_vit_feat = nn.Sequential(
                nn.ConvTranspose2d(vit_dim, c, kernel_size=2, stride=2),
                LayerNorm2d(c),
                nn.GELU(),
                nn.ConvTranspose2d(c, f, kernel_size=2, stride=2),
            )
        if "final" in sources:
            self.embedding_encoder = nn.Sequential(
                nn.ConvTranspose2d(c, c // 4, kernel_size=2, stride=2),
                LayerNorm2d(c // 4),
                nn.GELU(),
                nn.ConvTranspose2d(c // 4, f, kernel_size=2, stride=2),
            )
        if "mask" in sources:
            self.embedding_maskfeature = nn.Sequential(
                nn.Conv2d(f, c // 4, 3, 1, 1),
                LayerNorm2d(c // 4),
                nn.GELU(),
                nn.Conv2d(c // 4, f, 3, 1, 1),
            )
        self.sources = frozenset(sources)

    @classmethod
    def of(cls, backbone: Backbone, **own: Any) -> Self:
        """See ``Head.of``; `own` are further arguments of the class, such as ``sources``."""
        return cls(decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim, **own)

    def fuse(self, *, final_BCHW: Tensor, early_BVHW: Tensor) -> Tensor:
        """The prompt-independent part of the HQ feature: final and early image features at mask size.

        Args:
            final_BCHW: Output of the image encoder.
            early_BVHW: Output of the first global-attention block.

        Returns:
            ``[B,F,h,w]``, or ``[B,0,H,W]`` if neither is a source.
        """
        parts = [self.embedding_encoder(final_BCHW)] if "final" in self.sources else []
        parts += [self.compress_vit_feat(early_BVHW)] if "early" in self.sources else []
        return functools.reduce(torch.add, parts) if parts else final_BCHW[:, :0]

    def hq_logits(self, *, output: TokenOutput, fused_BFhw: Tensor) -> Tensor:
        """``mask_logits`` of the last token."""
        return self.mask_logits(
            token_PC=output.tokens_PTC[:, -1],
            upscaled_PFhw=output.upscaled_PFhw,
            fused_BFhw=fused_BFhw,
        )

    def mask_logits(self, *, token_PC: Tensor, upscaled_PFhw: Tensor, fused_BFhw: Tensor) -> Tensor:
        """HQ mask logits: the token's MLP output times (mask feature + fused feature).

        The published form makes the mask feature with a last 3x3 convolution to F channels and then
        takes the dot product with the token. Both are linear, so the token is multiplied into the
        kernel first: one output channel instead of F, the same logits up to rounding.

        Args:
            token_PC: HQ token after the transformer.
            upscaled_PFhw: SAM's upscaled mask feature.
            fused_BFhw: Output of ``fuse``, B = P or B = 1 (one image for all prompts).

        Returns:
            ``[P,1,h,w]`` logits; a mask is logit > 0.
        """
        weights_PF = self.hf_mlp(token_PC)
        parts = []
        if "mask" in self.sources:
            last = cast(nn.Conv2d, self.embedding_maskfeature[-1])
            kernel_P9D = _folded_kernel(last, weights_PF)
            taps_P9hw = _taps(self.embedding_maskfeature, upscaled_PFhw, kernel_P9D)
            parts.append(_gather(taps_P9hw, weights_PF @ cast(Tensor, last.bias)))
        if self.sources & {"final", "early"}:
            parts.append(dot_channels(weights_PF[:, None], fused_BFhw))
        return functools.reduce(torch.add, parts)


def dot_channels(weights_PKF: Tensor, feature_BFhw: Tensor) -> Tensor:
    """Dot products over channels: ``[P,K,F]`` times ``[P or 1,F,h,w]`` to ``[P,K,h,w]``."""
    h, w = feature_BFhw.shape[-2:]
    flat_BFn = feature_BFhw.flatten(2)
    right = flat_BFn[0] if flat_BFn.shape[0] == 1 else flat_BFn
    return torch.unflatten(weights_PKF @ right, -1, (h, w))


def conv3x3_per_prompt(feature_PDhw: Tensor, conv: nn.Conv2d, weights_PF: Tensor) -> Tensor:
    """``weights . conv3x3(feature)`` with the weights folded into the kernel, each prompt having its own.

    Args:
        feature_PDhw: Input of the convolution.
        conv: From D to F channels, padding 1, with bias.
        weights_PF: What its output would be multiplied with.

    Returns:
        ``[P,1,h,w]``.
    """
    taps_Pqn = _folded_kernel(conv, weights_PF) @ feature_PDhw.flatten(2)
    taps_P9hw = torch.unflatten(taps_Pqn, -1, feature_PDhw.shape[-2:])
    return _gather(taps_P9hw, weights_PF @ cast(Tensor, conv.bias))


def _folded_kernel(conv: nn.Conv2d, weights_PF: Tensor) -> Tensor:
    """``[P,9,D]``: each prompt's own kernel, its nine positions row by row."""
    return torch.einsum("pf,fdij->pijd", weights_PF, conv.weight).flatten(1, 2)


def _gather(taps_P9hw: Tensor, bias_P: Tensor) -> Tensor:
    """``[P,1,h,w]``: each pixel adds up what its nine neighbours have for it."""
    h, w = taps_P9hw.shape[-2:]
    padded = functional.pad(taps_P9hw, (1, 1, 1, 1))
    out_Phw = sum(padded[:, 3 * i + j, i : i + h, j : j + w] for i in range(3) for j in range(3))
    return (out_Phw + bias_P[:, None, None]).unsqueeze(1)


def _taps(layers: nn.Sequential, upscaled_PFhw: Tensor, kernel_P9D: Tensor) -> Tensor:
    """``kernel @ layers[:-1](upscaled)``, ``[P,9,h,w]``: on a CPU in strips of rows."""
    p, _, h, w = upscaled_PFhw.shape
    if not _in_blocks(upscaled_PFhw):
        return torch.unflatten(kernel_P9D @ _feature(layers, upscaled_PFhw).flatten(2), -1, (h, w))
    taps = upscaled_PFhw.new_empty(p, 9, h, w)
    for n in range(p):
        for start in range(0, h, _STRIP):
            stop = min(start + _STRIP, h)
            above = max(start - 1, 0)  # the 3x3 convolution looks at one more row on both sides
            feature = _feature(layers, upscaled_PFhw[n : n + 1, :, above : stop + 1])[0]
            rows = feature[:, start - above : stop - above].flatten(1)
            taps[n, :, start:stop] = (kernel_P9D[n] @ rows).view(9, stop - start, w)
    return taps


def _feature(layers: nn.Sequential, upscaled_PFhw: Tensor) -> Tensor:
    first, norm, activation, _ = layers
    x_BHWC = first(upscaled_PFhw).permute(0, 2, 3, 1)
    feature: Tensor = activation(_norm_last(norm, x_BHWC).permute(0, 3, 1, 2))  # `LayerNorm2d`
    return feature


def _in_blocks(x: Tensor) -> bool:
    """Return whether to work in blocks of a CPU cache's size: large maps are bound by memory bandwidth.

    Not where autograd keeps everything anyway, and not in an exported graph, which has no loops.
    """
    return (
        x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_exporting()
    )


@dataclass(frozen=True)
class Prompts:
    """Embedded prompts, as SAM's prompt encoder returns them.

    Attributes:
        sparse_PTC: Points and boxes.
        dense_PCHW: Mask prompts; ``[1,C,H,W]`` when none of the prompts has a mask (it is then the
            same for all).
        hq: The same prompts for the HQ decoder, if its prompt encoder is not SAM's.
    """

    sparse_PTC: Tensor
    dense_PCHW: Tensor
    hq: Prompts | None = None

    def __len__(self) -> int:
        return len(self.sparse_PTC)

    def __getitem__(self, some: slice) -> Prompts:
        """Part of the prompts; a dense embedding that all share stays shared."""
        dense = self.dense_PCHW if len(self.dense_PCHW) == 1 else self.dense_PCHW[some]
        return Prompts(self.sparse_PTC[some], dense, None if self.hq is None else self.hq[some])

    @property
    def for_hq(self) -> Prompts:
        """The embeddings for the HQ decoder."""
        return self if self.hq is None else self.hq


def run_transformer(
    decoder: Any,
    *,
    image_BCHW: Tensor,
    pe_1CHW: Tensor,
    prompts: Prompts,
    extra_KC: Tensor | None = None,
) -> TokenOutput:
    """Run SAM's two-way transformer and upscaling, optionally with extra output tokens.

    When all prompts look at one image and none brings a mask, image and dense embedding stay at
    batch 1 until the first cross-attention, which broadcasts: the projections of the image are then
    computed once, not once per prompt.

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
    hidden, source_PnC = two_way(
        decoder.transformer,
        image_BnC=source.flatten(2).transpose(1, 2),
        pe_1nC=pe_1CHW.flatten(2).transpose(1, 2),
        tokens_PTC=tokens,
    )
    upscaled = _upscale(decoder.output_upscaling, torch.unflatten(source_PnC, 1, (h, w)))
    return TokenOutput(tokens_PTC=hidden[:, : len(output_TC)], upscaled_PFhw=upscaled)


def _upscale(layers: nn.Sequential, source_PHWC: Tensor) -> Tensor:
    """SAM's ``output_upscaling``, computed per token.

    Its transposed convolutions have stride and kernel 2: each input pixel makes its own four output
    pixels. So both are matrix products on the tokens as they leave the transformer, the norm
    between them runs over contiguous channels, and the pixels are put in their places once, at the
    end.

    Args:
        layers: Transposed convolution, norm, activation, transposed convolution, activation.
        source_PHWC: Image tokens.

    Returns:
        ``[P,F,4H,4W]``, channels last in memory.
    """
    if not _in_blocks(source_PHWC):
        return _upscale_block(layers, source_PHWC).permute(0, 3, 1, 2)
    p, h, w, _ = source_PHWC.shape
    out = source_PHWC.new_empty(p, 4 * h, 4 * w, cast(nn.ConvTranspose2d, layers[3]).out_channels)
    step = _STRIP // 4
    for n in range(p):
        for start in range(0, h, step):
            block = _upscale_block(layers, source_PHWC[n : n + 1, start : start + step])
            out[n, 4 * start : 4 * (start + step)] = block[0]
    return out.permute(0, 3, 1, 2)


def _upscale_block(layers: nn.Sequential, source_PHWC: Tensor) -> Tensor:
    """``[P,4H,4W,F]``."""
    first, norm, activation, second, last_activation = layers
    p, h, w, _ = source_PHWC.shape
    quarter = activation(_norm_last(norm, _per_pixel(cast(nn.ConvTranspose2d, first), source_PHWC)))
    pixels: Tensor = last_activation(_per_pixel(cast(nn.ConvTranspose2d, second), quarter))
    # [p, h, w, (row, column) of the first doubling, (row, column) of the second, channels]
    pixels = pixels.view(p, h, w, 2, 2, 2, 2, -1).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return pixels.reshape(p, 4 * h, 4 * w, -1)


def _per_pixel(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """``[...,C]`` to ``[...,4,F]``: the 2 x 2 output pixels (row by row) of every input pixel."""
    weight_4FC = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)
    y = functional.linear(x, weight_4FC, cast(Tensor, conv.bias).repeat(4))
    return torch.unflatten(y, -1, (4, -1))


def _norm_last(norm: nn.Module, x: Tensor) -> Tensor:
    """``LayerNorm2d`` where the channels are last: the same mean and variance, in one pass of the fused kernel."""
    weight, bias = cast(Tensor, norm.weight), cast(Tensor, norm.bias)
    return functional.layer_norm(x, weight.shape, weight, bias, cast(float, norm.eps))


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
    return SamMasks(
        dot_channels(weights_PKF, output.upscaled_PFhw), iou[:, wanted.start : wanted.stop]
    )


def best_mask(masks: SamMasks) -> SamMasks:
    """The mask with the highest predicted IoU of each prompt: HQ-SAM's rule for multimask output."""
    if masks.iou_PK.shape[1] == 1:
        return masks
    best_P1 = masks.iou_PK.argmax(dim=1, keepdim=True)
    index = best_P1[..., None, None].expand(-1, -1, *masks.logits_PKhw.shape[-2:])
    return SamMasks(masks.logits_PKhw.gather(1, index), masks.iou_PK.gather(1, best_P1))
