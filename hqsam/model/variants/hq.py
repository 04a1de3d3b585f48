"""HQ-SAM as published: the HQ-Output token on the fused early, final and mask features (paper section 3.2)."""

from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant

VARIANT = Variant(
    name="hq",
    paper=(
        "2: HQ-SAM",
        "3: mask feature + final-layer + early-layer (HQ-SAM)",
        "4: HQ-SAM",
        "9: HQ-SAM",
        "10: HQ-SAM",
    ),
    build=HQHead.of,
)
