"""Fusion of SAM's mask feature alone: HQ-SAM without image features (Table 3)."""

from hqsam.model.backbones.base import Backbone
from hqsam.model.head import Head
from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant


def _build(backbone: Backbone) -> Head:
    return HQHead(decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim, sources=("mask",))


VARIANT = Variant(
    name="fusion_mask", paper=("3: fusion conv on SAM mask feature only",), build=_build
)
