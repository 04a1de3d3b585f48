"""What the rest of the code knows about a backbone: sizes, where the early feature is, how to build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A SAM with a known image encoder; the constant ``BACKBONE`` of each file in this folder.

    Attributes:
        name: Equal to the file's stem.
        image_size: Side S of the square network input, pixels.
        embedding_size: Side E of the final image embedding and of the early feature; masks leave the decoder
            at 4E.
        vit_dim: Channels V of the early feature.
        decoder_dim: Width C of prompt encoder and mask decoder (256 in every published SAM).
        early: Dotted path, inside ``Sam.image_encoder``, of the module whose *output* is the early feature:
            for a ViT the first block with global attention (paper section 3.2; index 0 of the official
            ``interm_embeddings``).
        early_layout: Layout of that output.
        build: Makes the ``segment_anything`` ``Sam`` with freshly initialised weights, in eval mode.
    """

    name: str
    image_size: int
    embedding_size: int
    vit_dim: int
    decoder_dim: int = 256
    early: str
    early_layout: Literal["BHWC", "BCHW"] = "BHWC"
    build: Callable[[], Any]

    def __post_init__(self) -> None:
        if min(self.image_size, self.embedding_size, self.vit_dim, self.decoder_dim) < 1:
            raise ValueError(f"backbone {self.name}: sizes must be positive")
        if self.decoder_dim % 8:
            raise ValueError(f"backbone {self.name}: decoder_dim must be a multiple of 8, is {self.decoder_dim}")

    @property
    def mask_size(self) -> int:
        """Side of the decoder's low-resolution masks and of mask prompts (256 for a 1024-pixel SAM)."""
        return 4 * self.embedding_size


def vit_backbone(
    name: str,
    *,
    width: int,
    depth: int,
    heads: int,
    global_blocks: tuple[int, ...],
    image_size: int = 1024,
    patch_size: int = 16,
    window_size: int = 14,
    decoder_dim: int = 256,
    decoder_mlp_dim: int = 2048,
    iou_hidden_dim: int = 256,
) -> Backbone:
    """A backbone made of ``segment_anything``'s plain ViT; the defaults are those of the published models.

    Args:
        name: File stem.
        width: Token width of the ViT (V).
        depth: Number of blocks.
        heads: Attention heads.
        global_blocks: 0-based indices of the blocks with global attention; the first gives the early feature.
        image_size: Side of the input, pixels.
        patch_size: Side of a patch, pixels.
        window_size: Window of the other blocks, in patches.
        decoder_dim: Width of prompt encoder and mask decoder.
        decoder_mlp_dim: Hidden width of the two-way transformer's MLPs.
        iou_hidden_dim: Hidden width of the IoU head.

    Returns:
        The description; nothing is built yet.
    """

    def build() -> Any:
        return _build_vit_sam(
            encoder=_encoder_options(width, depth, heads, global_blocks, image_size, patch_size, window_size),
            embedding_size=image_size // patch_size,
            decoder_dim=decoder_dim,
            decoder_mlp_dim=decoder_mlp_dim,
            iou_hidden_dim=iou_hidden_dim,
        )

    return Backbone(
        name=name,
        image_size=image_size,
        embedding_size=image_size // patch_size,
        vit_dim=width,
        decoder_dim=decoder_dim,
        early=f"blocks.{global_blocks[0]}",
        build=build,
    )


def _encoder_options(
    width: int,
    depth: int,
    heads: int,
    global_blocks: tuple[int, ...],
    image_size: int,
    patch_size: int,
    window_size: int,
) -> dict[str, Any]:
    return {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "global_attn_indexes": global_blocks,
        "img_size": image_size,
        "patch_size": patch_size,
        "window_size": window_size,
    }


def _build_vit_sam(
    *,
    encoder: dict[str, Any],
    embedding_size: int,
    decoder_dim: int,
    decoder_mlp_dim: int,
    iou_hidden_dim: int,
) -> Any:
    from functools import partial

    from torch import nn

    from hqsam.model.sam_api import ImageEncoderViT

    image_encoder = ImageEncoderViT(
        **encoder,
        mlp_ratio=4,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        out_chans=decoder_dim,
    )
    return assemble_sam(
        image_encoder,
        image_size=encoder["img_size"],
        embedding_size=embedding_size,
        decoder_dim=decoder_dim,
        decoder_mlp_dim=decoder_mlp_dim,
        iou_hidden_dim=iou_hidden_dim,
    )


def assemble_sam(
    image_encoder: Any,
    *,
    image_size: int,
    embedding_size: int,
    decoder_dim: int = 256,
    decoder_mlp_dim: int = 2048,
    iou_hidden_dim: int = 256,
) -> Any:
    """Put SAM's prompt encoder and mask decoder behind an image encoder.

    Args:
        image_encoder: Module mapping ``[B,3,S,S]`` to ``[B,C,E,E]``, with an ``img_size`` attribute.
        image_size: S.
        embedding_size: E.
        decoder_dim: C.
        decoder_mlp_dim: Hidden width of the two-way transformer's MLPs.
        iou_hidden_dim: Hidden width of the IoU head.

    Returns:
        ``segment_anything.modeling.Sam`` in eval mode.
    """
    from hqsam.model.sam_api import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    sam = Sam(
        image_encoder=image_encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=decoder_dim,
            image_embedding_size=(embedding_size, embedding_size),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=decoder_dim, mlp_dim=decoder_mlp_dim, num_heads=8),
            transformer_dim=decoder_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=iou_hidden_dim,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam.eval()
