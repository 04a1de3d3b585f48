"""What a model trains: the contract between `HQSam` and the systems of the paper's tables (`hqsam/model/variants`).

Everything trainable is a parameter of one module, the head: the optimiser, the file of trained
weights and the parameter count all take it from there. SAM itself stays as loaded, whatever trains,
because the vanilla baseline comes from it; a variant that tunes SAM's own parameters holds its
copies of them.

Shape letters as in ``hq_decoder``.
"""

# ruff: noqa: N815 -- shape suffixes are the house style, attributes included
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from hqsam.model.backbones.base import Backbone


@dataclass(frozen=True)
class TokenOutput:
    """What the two-way transformer leaves behind.

    Attributes:
        tokens_PTC: The output tokens in order: IoU, SAM's mask tokens, then extra tokens.
        upscaled_PFhw: SAM's upscaled mask feature.
    """

    tokens_PTC: Tensor
    upscaled_PFhw: Tensor


class Head(nn.Module):
    """Trains nothing and changes nothing: the defaults that each variant overrides in part.

    Attributes:
        variant: Name of the variant, as files and reports note it.
        changes_encoder: Whether ``encode`` is not SAM's encoder, so that an image must be encoded
            twice.
    """

    variant: str = "hq"
    changes_encoder: ClassVar[bool] = False

    @classmethod
    def of(cls, backbone: Backbone) -> Self:
        """A fresh head for a backbone; subclasses take the widths that they need from it."""
        return cls()

    def attach(self, sam: Any) -> None:
        """Get to know the loaded SAM, once: copy what is to be tuned, make layers that fit it.

        Args:
            sam: ``segment_anything`` ``Sam``; nothing of it may change.
        """

    def encode(self, sam: Any, input_B3SS: Tensor) -> Tensor:
        """Image embedding ``[B,C,H,W]``; SAM's own unless ``changes_encoder``."""
        embedding: Tensor = sam.image_encoder(input_B3SS)
        return embedding

    def use_prompt_encoder(self, sam: Any) -> Any:
        """The module that embeds prompts; SAM's own unless the variant tunes it."""
        return sam.prompt_encoder

    def use_mask_decoder(self, sam: Any) -> Any:
        """An object with the attributes of ``MaskDecoder``; SAM's own unless the variant tunes it."""
        return sam.mask_decoder

    def extra_tokens(self) -> Tensor | None:
        """Output tokens ``[K,C]`` to append after SAM's."""
        return None

    def fuse(self, *, final_BCHW: Tensor, early_BVHW: Tensor) -> Tensor:
        """The part of the mask feature that is the same for all prompts of an image.

        Args:
            final_BCHW: Output of the image encoder.
            early_BVHW: Output of the first global-attention block.

        Returns:
            ``[B,F,h,w]``, or ``[B,0,...]`` if there is no such part.
        """
        return final_BCHW[:, :0]

    def hq_logits(self, *, output: TokenOutput, fused_BFhw: Tensor) -> Tensor | None:
        """Mask logits of the variant's own token.

        Args:
            output: What the transformer left behind, the extra tokens last.
            fused_BFhw: Of ``fuse``, B = P or B = 1.

        Returns:
            ``[P,1,h,w]``; None if SAM's token predicts the mask.
        """
        return None
