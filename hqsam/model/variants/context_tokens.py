"""Three context tokens in SAM's decoder; SAM's own frozen token and MLP predict the mask (Tables 2 and 4)."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from hqsam.model.backbones.base import Backbone
from hqsam.model.head import Head
from hqsam.model.variants._base import Variant
from hqsam.model.variants._parts import ContextTokens


class _ContextHead(Head):
    def __init__(self, *, decoder_dim: int) -> None:
        super().__init__()
        self.context_tokens = ContextTokens(decoder_dim)

    @classmethod
    def of(cls, backbone: Backbone) -> Self:
        return cls(decoder_dim=backbone.decoder_dim)

    def extra_tokens(self) -> Tensor:
        return self.context_tokens.weight


VARIANT = Variant(
    name="context_tokens",
    paper=("2: SAM + Context Token", "4: Add Context Token"),
    build=_ContextHead.of,
)
