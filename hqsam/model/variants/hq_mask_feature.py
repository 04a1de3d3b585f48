"""The HQ-Output token on SAM's mask feature as it is, without fusion (Table 2, Table 3 first row)."""

from hqsam.model.hq_decoder import TokenHead
from hqsam.model.variants._base import Variant

VARIANT = Variant(
    name="hq_mask_feature",
    paper=("2: SAM + HQ-Output Token, SAM mask feature", "3: SAM mask feature, no fusion conv"),
    build=TokenHead.of,
)
