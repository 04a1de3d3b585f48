"""The HQ-Output token times SAM's output tokens, on SAM's mask feature (Table 2, "x Output Token").

The paper calls it a scaled dot product between the two and says no more. Read here as scaled
dot-product attention: after the transformer the HQ token looks at SAM's four mask tokens, and what
it sees is added to it. No parameter is added.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from hqsam.model.head import TokenOutput
from hqsam.model.hq_decoder import TokenHead, dot_channels
from hqsam.model.variants._base import Variant


class _TimesOutputHead(TokenHead):
    def hq_logits(self, *, output: TokenOutput, fused_BFhw: Tensor) -> Tensor:
        own_P1C, sams_P4C = output.tokens_PTC[:, -1:], output.tokens_PTC[:, 1:-1]
        seen_P1C = functional.scaled_dot_product_attention(own_P1C, sams_P4C, sams_P4C)
        return dot_channels(self.hf_mlp(own_P1C + seen_P1C), output.upscaled_PFhw)


VARIANT = Variant(
    name="hq_times_output",
    paper=("2: SAM + HQ-Output Token (x Output Token), SAM mask feature",),
    build=_TimesOutputHead.of,
)
