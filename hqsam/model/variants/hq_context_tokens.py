"""HQ-SAM with three context tokens beside the HQ-Output token (Table 2, "+ Context Token")."""

from __future__ import annotations

from torch import Tensor

from hqsam.model.hq_decoder import HQHead
from hqsam.model.variants._base import Variant
from hqsam.model.variants._parts import ContextTokens


class _ContextHQHead(HQHead):
    def __init__(self, *, decoder_dim: int, vit_dim: int) -> None:
        super().__init__(decoder_dim=decoder_dim, vit_dim=vit_dim)
        self.context_tokens = ContextTokens(decoder_dim)

    def extra_tokens(self) -> Tensor:
        return self.context_tokens.before(super().extra_tokens())


VARIANT = Variant(
    name="hq_context_tokens",
    paper=("2: SAM + HQ-Output Token (+ Context Token), HQ feature",),
    build=_ContextHQHead.of,
)
