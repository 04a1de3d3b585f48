"""LoRA (arXiv 2106.09685) of rank 4 in the query-key-value projections of the image encoder (Table 9).

``qkv(x) + B A x`` with B zero at first. The paper gives the size only as 1.5 MiB for ViT-L: 24
blocks of rank 4 on the joint projection are 393,216 parameters, exactly that.

``peft`` computes the same (a test compares), but replaces the projections by its own modules: SAM's
keys would no longer be the published ones, SAM and this variant could not share an encoder, and
transformers and accelerate would become needed to load a model. Twenty lines are the smaller price.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from hqsam.model.variants._base import Variant
from hqsam.model.variants._encoder import EncoderHead

RANK = 4


class _LowRank(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.a = nn.Linear(width_in, RANK, bias=False)
        self.b = nn.Linear(RANK, width_out, bias=False)
        nn.init.kaiming_uniform_(self.a.weight, a=math.sqrt(5))
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        added: Tensor = self.b(self.a(x))
        return out + added


class _LowRankHead(EncoderHead):
    def layer(self, attention: Any) -> nn.Module:
        return _LowRank(attention.qkv.in_features, attention.qkv.out_features)

    def place(self, attention: Any) -> nn.Module:
        module: nn.Module = attention.qkv
        return module


VARIANT = Variant(
    name="lora_encoder", paper=("9: SAM + LoRA",), build=_LowRankHead.of, changes_encoder=True
)
