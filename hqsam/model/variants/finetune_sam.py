"""The whole SAM, tuned: image encoder, prompt encoder and mask decoder (Table 4, "Training the whole SAM").

Holds a second copy of the encoder. Batch norms of a hierarchical encoder keep their statistics;
their scales train.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from hqsam.model.head import Head
from hqsam.model.variants._base import Variant
from hqsam.model.variants._parts import trainable_copy
from hqsam.model.variants._tuned import TunedDecoder


class _WholeSamHead(Head):
    changes_encoder: ClassVar[bool] = True

    def attach(self, sam: Any) -> None:
        self.image_encoder = trainable_copy(sam.image_encoder)
        self.prompt_encoder = trainable_copy(sam.prompt_encoder)
        self.mask_decoder = TunedDecoder(sam.mask_decoder)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def encode(self, sam: Any, input_B3SS: Tensor) -> Tensor:
        embedding: Tensor = self.image_encoder(input_B3SS)
        return embedding

    def use_prompt_encoder(self, sam: Any) -> Any:
        return self.prompt_encoder

    def use_mask_decoder(self, sam: Any) -> SimpleNamespace:
        return self.mask_decoder.view(sam.mask_decoder)


VARIANT = Variant(
    name="finetune_sam",
    paper=("4: Training the whole SAM",),
    build=_WholeSamHead.of,
    changes_encoder=True,
)
