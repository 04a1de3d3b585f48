"""SAM's mask decoder, tuned as a whole; encoders stay (Table 4)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hqsam.model.head import Head
from hqsam.model.variants._base import Variant
from hqsam.model.variants._tuned import TunedDecoder


class _DecoderHead(Head):
    def attach(self, sam: Any) -> None:
        self.mask_decoder = TunedDecoder(sam.mask_decoder)

    def use_mask_decoder(self, sam: Any) -> SimpleNamespace:
        return self.mask_decoder.view(sam.mask_decoder)


VARIANT = Variant(
    name="finetune_decoder", paper=("4: Finetune SAM's decoder",), build=_DecoderHead.of
)
