"""Fusion of the final image feature alone: neither SAM's mask feature nor the early one (Table 3)."""

from hqsam.model.backbones.base import Backbone
from hqsam.model.head import Head
from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant


def _build(backbone: Backbone) -> Head:
    return HQHead(decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim, sources=("final",))


VARIANT = Variant(
    name="fusion_final",
    paper=("3: fusion conv on final-layer feature only (no mask feature)",),
    build=_build,
)
