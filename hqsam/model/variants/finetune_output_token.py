"""SAM's own output token and its MLP, tuned; the rest of the decoder stays (Table 4).

The paper does not say whether the MLP trains along; here it does, as the HQ token's does.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from hqsam.model.head import Head
from hqsam.model.variants._base import Variant
from hqsam.model.variants._parts import trainable_copy
from hqsam.model.variants._tuned import view


class _OutputTokenHead(Head):
    def attach(self, sam: Any) -> None:
        decoder = sam.mask_decoder
        self.output_token = nn.Embedding(
            1, decoder.transformer_dim, _weight=decoder.mask_tokens.weight[:1].detach().clone()
        )
        self.output_mlp = trainable_copy(decoder.output_hypernetworks_mlps[0])

    def use_mask_decoder(self, sam: Any) -> SimpleNamespace:
        decoder = sam.mask_decoder
        tokens = torch.cat([self.output_token.weight, decoder.mask_tokens.weight[1:]])
        return view(decoder, output_mlp=self.output_mlp, mask_tokens=SimpleNamespace(weight=tokens))


VARIANT = Variant(
    name="finetune_output_token",
    paper=("4: Finetune SAM's output token",),
    build=_OutputTokenHead.of,
)
