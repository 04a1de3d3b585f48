"""Fusion of the final image feature alone: neither SAM's mask feature nor the early one (Table 3)."""

from functools import partial

from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant

VARIANT = Variant(
    name="fusion_final",
    paper=("3: fusion conv on final-layer feature only (no mask feature)",),
    build=partial(HQHead.of, sources=("final",)),
)
