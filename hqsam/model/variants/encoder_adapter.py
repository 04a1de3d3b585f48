"""A bottleneck adapter after every attention block of the image encoder, as in AIM (arXiv 2302.03024) (Table 9).

``out + up(gelu(down(out)))`` on the attention's output. The paper gives the size only as 12.0 MiB
for ViT-L: 24 blocks with a bottleneck of 64 and no biases are 3,145,728 parameters, exactly that. A
fresh adapter changes nothing: ``up`` is zero.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from hqsam.model.variants._base import Variant
from hqsam.model.variants._encoder import EncoderHead

BOTTLENECK = 64


class _Adapter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, BOTTLENECK, bias=False)
        self.up = nn.Linear(BOTTLENECK, width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        added: Tensor = self.up(functional.gelu(self.down(out)))
        return out + added


class _AdapterHead(EncoderHead):
    def layer(self, attention: Any) -> nn.Module:
        return _Adapter(attention.proj.out_features)

    def place(self, attention: Any) -> nn.Module:
        module: nn.Module = attention
        return module


VARIANT = Variant(
    name="encoder_adapter",
    paper=("9: SAM + Encoder Adapter",),
    build=_AdapterHead.of,
    changes_encoder=True,
)
