"""Fusion of the two image features without SAM's mask feature: a subset of sources that Table 3 leaves out."""

from hqsam.model.backbones.base import Backbone
from hqsam.model.head import Head
from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant


def _build(backbone: Backbone) -> Head:
    return HQHead(
        decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim, sources=("early", "final")
    )


VARIANT = Variant(name="fusion_final_early", paper=(), build=_build)
