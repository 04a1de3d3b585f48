"""SAM nano: 5 blocks of width 192 on 128-pixel images, 3.3 M parameters; weights beside this file (docs/nano.md).

A miniature for checking the pipeline on a CPU, pretrained on procedural scenes with coarse masks by
``scripts/pretrain_nano.py``. It proves nothing about SAM.
"""

from hqsam.model.backbones.base import DecoderSizes, vit_backbone

BACKBONE = vit_backbone(
    "nano",
    width=192,
    depth=5,
    heads=6,
    global_blocks=(1, 3, 4),
    image_size=128,
    patch_size=8,
    window_size=8,
    decoder=DecoderSizes(width=128, mlp_width=512, iou_width=128),
)
