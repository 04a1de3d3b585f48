"""Fusion of SAM's mask feature and the early image feature, without the final one (Table 3)."""

from functools import partial

from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant

VARIANT = Variant(
    name="fusion_mask_early",
    paper=("3: mask feature + early-layer",),
    build=partial(HQHead.of, sources=("early", "mask")),
)
