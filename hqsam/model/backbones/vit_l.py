"""SAM ViT-L: 24 blocks of width 1024; sam_vit_l_0b3195.pth, sam_hq_vit_l.pth."""

from hqsam.model.backbones.base import vit_backbone

BACKBONE = vit_backbone("vit_l", width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23))
