"""Fusion of SAM's mask feature and the early image feature, without the final one (Table 3)."""

from hqsam.model.backbones.base import Backbone
from hqsam.model.head import Head
from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant


def _build(backbone: Backbone) -> Head:
    return HQHead(
        decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim, sources=("early", "mask")
    )


VARIANT = Variant(name="fusion_mask_early", paper=("3: mask feature + early-layer",), build=_build)
