"""What the rest of the code knows about a backbone: sizes, where the early feature is, how to build it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A SAM with a known image encoder; the constant ``BACKBONE`` of each file in this folder.

    Attributes:
        name: Equal to the file's stem.
        image_size: Side S of the square network input, pixels.
        embedding_size: Side E of the final image embedding and of the early feature; masks leave
            the decoder at 4E.
        vit_dim: Channels V of the early feature.
        decoder_dim: Width C of prompt encoder and mask decoder (256 in every published SAM).
        early: Dotted path, inside ``Sam.image_encoder``, of the module whose *output* is the early
            feature: for a ViT the first block with global attention (paper section 3.2; index 0 of
                the official
            ``interm_embeddings``).
        early_layout: Layout of that output.
        build: Makes the ``segment_anything`` ``Sam`` with freshly initialised weights, in eval
            mode.
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
            raise ValueError(
                f"backbone {self.name}: decoder_dim must be a multiple of 8, is {self.decoder_dim}"
            )

    @property
    def mask_size(self) -> int:
        """Side of the decoder's low-resolution masks and of mask prompts (256 for a 1024-pixel SAM)."""
        return 4 * self.embedding_size


@dataclass(frozen=True, kw_only=True)
class DecoderSizes:
    """Widths of what is behind the image encoder; the defaults are those of every published SAM.

    Attributes:
        width: Width C of prompt encoder and mask decoder.
        mlp_width: Hidden width of the two-way transformer's MLPs.
        iou_width: Hidden width of the IoU head.
    """

    width: int = 256
    mlp_width: int = 2048
    iou_width: int = 256


PUBLISHED = DecoderSizes()


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
    decoder: DecoderSizes = PUBLISHED,
) -> Backbone:
    """A backbone made of ``segment_anything``'s plain ViT; the defaults are those of the published models.

    Args:
        name: File stem.
        width: Token width of the ViT (V).
        depth: Number of blocks.
        heads: Attention heads.
        global_blocks: 0-based indices of the blocks with global attention; the first gives the
            early feature.
        image_size: Side of the input, pixels.
        patch_size: Side of a patch, pixels.
        window_size: Window of the other blocks, in patches.
        decoder: Widths of prompt encoder and mask decoder.

    Returns:
        The description; nothing is built yet.
    """
    side = image_size // patch_size
    encoder = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "global_attn_indexes": global_blocks,
        "img_size": image_size,
        "patch_size": patch_size,
        "window_size": window_size,
        "out_chans": decoder.width,
    }
    return Backbone(
        name=name,
        image_size=image_size,
        embedding_size=side,
        vit_dim=width,
        decoder_dim=decoder.width,
        early=f"blocks.{global_blocks[0]}",
        build=partial(
            _build_vit, encoder, image_size=image_size, embedding_size=side, decoder=decoder
        ),
    )


def _build_vit(
    encoder: Mapping[str, Any], *, image_size: int, embedding_size: int, decoder: DecoderSizes
) -> Any:
    from torch import nn

    from hqsam.model.sam_api import ImageEncoderViT

    norm = partial(nn.LayerNorm, eps=1e-6)
    vit = ImageEncoderViT(mlp_ratio=4, norm_layer=norm, qkv_bias=True, use_rel_pos=True, **encoder)
    return assemble_sam(vit, image_size=image_size, embedding_size=embedding_size, decoder=decoder)


def assemble_sam(
    image_encoder: Any, *, image_size: int, embedding_size: int, decoder: DecoderSizes = PUBLISHED
) -> Any:
    """Put SAM's prompt encoder and mask decoder behind an image encoder.

    Args:
        image_encoder: Module mapping ``[B,3,S,S]`` to ``[B,C,E,E]``, with an ``img_size``
            attribute.
        image_size: S.
        embedding_size: E.
        decoder: Widths, C among them.

    Returns:
        ``segment_anything.modeling.Sam`` in eval mode.
    """
    from hqsam.model.sam_api import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    width = decoder.width
    sam = Sam(
        image_encoder=image_encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=width,
            image_embedding_size=(embedding_size, embedding_size),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=width, mlp_dim=decoder.mlp_width, num_heads=8
            ),
            transformer_dim=width,
            iou_head_depth=3,
            iou_head_hidden_dim=decoder.iou_width,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    return sam.eval()
