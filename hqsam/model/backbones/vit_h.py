"""SAM ViT-H: 32 blocks of width 1280; sam_vit_h_4b8939.pth, sam_hq_vit_h.pth."""

from hqsam.model.backbones.base import vit_backbone

BACKBONE = vit_backbone("vit_h", width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31))
