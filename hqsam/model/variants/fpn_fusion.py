"""A conventional feature pyramid instead of the global-local fusion (section 4.2, "FPN").

The paper gives no sizes. Here: Feature Pyramid Networks (arXiv 1612.03144) over final feature,
early feature and SAM's mask feature, coarse to fine: a 1x1 convolution brings each level to C / 4
channels, the coarser sum is added (enlarged where the sizes differ), a 3x3 convolution makes the HQ
feature.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn
from torch.nn import functional

from hqsam.model.backbones.base import Backbone
from hqsam.model.head import TokenOutput
from hqsam.model.hq_decoder import TokenHead, conv3x3_per_prompt
from hqsam.model.variants._base import Variant


class _PyramidHead(TokenHead):
    def __init__(self, *, decoder_dim: int, vit_dim: int) -> None:
        super().__init__(decoder_dim=decoder_dim)
        width, feature = decoder_dim // 4, decoder_dim // 8
        self.lateral_final = nn.Conv2d(decoder_dim, width, 1)
        self.lateral_early = nn.Conv2d(vit_dim, width, 1)
        self.lateral_mask = nn.Conv2d(feature, width, 1)
        self.output = nn.Conv2d(width, feature, 3, padding=1)

    @classmethod
    def of(cls, backbone: Backbone) -> Self:
        return cls(decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim)

    def fuse(self, *, final_BCHW: Tensor, early_BVHW: Tensor) -> Tensor:
        """Return the upper two levels at mask size, ``[B,C/4,h,w]``."""
        levels = self.lateral_final(final_BCHW) + self.lateral_early(early_BVHW)
        return functional.interpolate(levels, scale_factor=4, mode="nearest")

    def hq_logits(self, *, output: TokenOutput, fused_BFhw: Tensor) -> Tensor:
        feature = self.lateral_mask(output.upscaled_PFhw) + fused_BFhw
        return conv3x3_per_prompt(feature, self.output, self.hf_mlp(output.tokens_PTC[:, -1]))


VARIANT = Variant(
    name="fpn_fusion", paper=("text-4.2: HQ-SAM with FPN fusion",), build=_PyramidHead.of
)
