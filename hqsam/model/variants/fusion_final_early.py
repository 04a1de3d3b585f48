"""Fusion of the two image features without SAM's mask feature: a subset of sources that Table 3 leaves out."""

from functools import partial

from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant

VARIANT = Variant(
    name="fusion_final_early", paper=(), build=partial(HQHead.of, sources=("early", "final"))
)
