"""Small trainable layers inside SAM's frozen image encoder, in force only while this variant encodes.

The encoder's modules are neither replaced nor copied: a forward hook on each asks whether a variant
is encoding right now, in this thread, and leaves the output alone if not. SAM's state dict, its
result and its memory stay what they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, ClassVar

from torch import Tensor, nn

from hqsam.model.head import Head

Change = Callable[[Tensor, Tensor], Tensor]
_CHANGES: ContextVar[Mapping[nn.Module, nn.Module] | None] = ContextVar(
    "hqsam_encoder_changes", default=None
)


def _hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """Return the layer's version of the output, or None for the output as it is (a forward hook)."""
    changes = _CHANGES.get()
    if changes is None:
        return None
    changed: Tensor = changes[module](inputs[0], output)
    return changed


class EncoderHead(Head, ABC):
    """One layer for each attention block of the encoder.

    SAM's token predicts the mask from the changed embedding.
    """

    changes_encoder: ClassVar[bool] = True

    @abstractmethod
    def layer(self, attention: Any) -> nn.Module:
        """Make the layer for one block, called with (input, output) of the module of ``place``."""

    @abstractmethod
    def place(self, attention: Any) -> nn.Module:
        """Return the module inside (or equal to) an attention block; the layer changes its output."""

    def attach(self, sam: Any) -> None:
        """Make the layers and hook them to the encoder."""
        blocks = attention_blocks(sam.image_encoder)
        self.layers = nn.ModuleList(self.layer(block) for block in blocks)
        for block in blocks:
            self.place(block).register_forward_hook(_hook)

    def encode(self, sam: Any, input_B3SS: Tensor) -> Tensor:
        """Run SAM's encoder with the layers in force."""
        places = [self.place(block) for block in attention_blocks(sam.image_encoder)]
        token = _CHANGES.set(dict(zip(places, self.layers, strict=True)))
        try:
            return super().encode(sam, input_B3SS)
        finally:
            _CHANGES.reset(token)


def attention_blocks(encoder: nn.Module) -> list[Any]:
    """Return the self-attention modules of a ViT or TinyViT: those with one projection to queries, keys and values."""
    return [
        module
        for module in encoder.modules()
        if isinstance(getattr(module, "qkv", None), nn.Linear)
    ]
