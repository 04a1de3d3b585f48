"""Fusion of SAM's mask feature and the final image feature, without the early one (Table 3)."""

from hqsam.model.backbones.base import Backbone
from hqsam.model.head import Head
from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant


def _build(backbone: Backbone) -> Head:
    return HQHead(
        decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim, sources=("final", "mask")
    )


VARIANT = Variant(name="fusion_mask_final", paper=("3: mask feature + final-layer",), build=_build)
