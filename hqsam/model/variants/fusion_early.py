"""Fusion of the early image feature alone: the subset of sources that Table 3 leaves out beside ``fusion_final``."""

from functools import partial

from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant

VARIANT = Variant(name="fusion_early", paper=(), build=partial(HQHead.of, sources=("early",)))
