"""MobileSAM's TinyViT: sam_hq_vit_tiny.pth (Light HQ-SAM), mobile_sam.pt."""

from typing import Any

from hqsam.model.backbones.base import Backbone, assemble_sam


def _build() -> Any:
    from hqsam.model.tiny_vit import TinyViT

    return assemble_sam(TinyViT(), image_size=1024, embedding_size=64)


BACKBONE = Backbone(
    name="vit_tiny",
    image_size=1024,
    embedding_size=64,
    vit_dim=160,
    early="layers.1",
    early_layout="BCHW",
    build=_build,
)
