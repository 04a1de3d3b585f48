"""Fusion of SAM's mask feature alone: HQ-SAM without image features (Table 3)."""

from functools import partial

from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant

VARIANT = Variant(
    name="fusion_mask",
    paper=("3: fusion conv on SAM mask feature only",),
    build=partial(HQHead.of, sources=("mask",)),
)
