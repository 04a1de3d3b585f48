"""SAM ViT-B: 12 blocks of width 768; sam_vit_b_01ec64.pth, sam_hq_vit_b.pth."""

from hqsam.model.backbones.base import vit_backbone

BACKBONE = vit_backbone("vit_b", width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11))
