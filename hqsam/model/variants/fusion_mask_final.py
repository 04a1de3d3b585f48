"""Fusion of SAM's mask feature and the final image feature, without the early one (Table 3)."""

from functools import partial

from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant

VARIANT = Variant(
    name="fusion_mask_final",
    paper=("3: mask feature + final-layer",),
    build=partial(HQHead.of, sources=("final", "mask")),
)
