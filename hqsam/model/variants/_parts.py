"""What several variants share."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class ContextTokens(nn.Embedding):
    """Learnable tokens that only take part in attention (CoOp, arXiv 2109.01134, as the paper's section 4.2 has it).

    The paper says how many, not how they start: like SAM's own output tokens, from a unit normal
    distribution.
    """

    NUMBER = 3

    def __init__(self, decoder_dim: int) -> None:
        super().__init__(self.NUMBER, decoder_dim)

    def before(self, tokens_KC: Tensor) -> Tensor:
        """Put these tokens before others."""
        return torch.cat([self.weight, tokens_KC])


def trainable_copy(module: M) -> M:
    """Copy a module: its parameters train, its buffers (fixed numbers) stay out of the state dict."""
    copied = copy.deepcopy(module).requires_grad_(True)
    for part in copied.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            part.register_buffer(name, buffer, persistent=False)
    return copied
