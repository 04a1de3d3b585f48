"""TinyViT-5M as MobileSAM and Light HQ-SAM use it: image encoder with a stride of 16 instead of 32.

Architecture: TinyViT (arXiv 2207.10666), with the last down-sampling left out and SAM's neck behind
it (MobileSAM, arXiv 2306.14289). Parameter names are those of the published files
(``sam_hq_vit_tiny.pth``, ``mobile_sam.pt``), whose unused ImageNet classifier (``norm_head``,
``head``) is left out.

Shape letters: B images; C channels; H, W map; L tokens of a window; N heads; D channels per head.
Maps are BCHW throughout.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqsam.model.sam_api import LayerNorm2d


def _conv_bn(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(c=conv, bn=nn.BatchNorm2d(c_out)))


class _Stem(nn.Module):
    """Two strided convolutions: a quarter of the size."""

    def __init__(self, c_out: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            _conv_bn(3, c_out // 2, 3, 2), nn.GELU(), _conv_bn(c_out // 2, c_out, 3, 2)
        )

    def forward(self, x_B3HW: Tensor) -> Tensor:
        y: Tensor = self.seq(x_B3HW)
        return y


class _InvertedBottleneck(nn.Module):
    """MobileNet's block: expand, depthwise 3x3, project; residual."""

    def __init__(self, c: int, expand: int = 4) -> None:
        super().__init__()
        self.conv1 = _conv_bn(c, c * expand)
        self.conv2 = _conv_bn(c * expand, c * expand, 3, groups=c * expand)
        self.conv3 = _conv_bn(c * expand, c)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = functional.gelu(self.conv1(x_BCHW))
        y = functional.gelu(self.conv2(y))
        return functional.gelu(self.conv3(y) + x_BCHW)


class _Merge(nn.Module):
    """Change the width, and halve the map if the stride is 2."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv_bn(c_in, c_out)
        self.conv2 = _conv_bn(c_out, c_out, 3, stride, groups=c_out)
        self.conv3 = _conv_bn(c_out, c_out)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        wide = functional.gelu(self.conv1(x_BCHW))
        y: Tensor = self.conv3(functional.gelu(self.conv2(wide)))
        return y


class _WindowAttention(nn.Module):
    """Attention inside square windows, with a learned bias per absolute offset (|dy|, |dx|)."""

    def __init__(self, c: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(c)
        self.qkv = nn.Linear(c, 3 * c)
        self.proj = nn.Linear(c, c)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, x_BLC: Tensor) -> Tensor:
        b, tokens, c = x_BLC.shape
        qkv = self.qkv(self.norm(x_BLC)).view(b, tokens, self.heads, 3, c // self.heads)
        q_BNLD, k_BNLD, v_BNLD = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        # `[L, L]` index of the bias of each pair: |dy| * window + |dx|
        side = torch.arange(self.window, device=x_BLC.device)
        distance = (side[:, None] - side[None]).abs()
        pairs = distance[:, None, :, None] * self.window + distance[None, :, None, :]
        offsets_LL = pairs.reshape(self.window**2, self.window**2)
        bias_NLL = self.attention_biases[:, offsets_LL].to(q_BNLD.dtype)
        out = functional.scaled_dot_product_attention(
            q_BNLD, k_BNLD, v_BNLD, attn_mask=bias_NLL[None]
        )
        y: Tensor = self.proj(out.transpose(1, 2).reshape(b, tokens, c))
        return y


class _Mlp(nn.Module):
    def __init__(self, c: int, expand: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c)
        self.fc1 = nn.Linear(c, c * expand)
        self.fc2 = nn.Linear(c * expand, c)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(functional.gelu(self.fc1(self.norm(x))))
        return y


class _TransformerBlock(nn.Module):
    """Window attention, depthwise 3x3 convolution, MLP."""

    def __init__(self, c: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = _WindowAttention(c, heads, window)
        self.local_conv = _conv_bn(c, c, 3, groups=c)
        self.mlp = _Mlp(c)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # Padded before the norm, as published: padding tokens take part as keys.
        b, c, h, w = x_BCHW.shape
        s = self.window
        padded = functional.pad(x_BCHW, (0, -w % s, 0, -h % s))
        rows, cols = padded.shape[2] // s, padded.shape[3] // s
        windows = padded.view(b, c, rows, s, cols, s).permute(0, 2, 4, 3, 5, 1)
        out = self.attn(windows.reshape(b * rows * cols, s * s, c)).view(b, rows, cols, s, s, c)
        whole: Tensor = out.permute(0, 5, 1, 3, 2, 4).reshape(b, c, rows * s, cols * s)
        x = x_BCHW + whole[:, :, :h, :w]
        x_BHWC: Tensor = self.local_conv(x).permute(0, 2, 3, 1)
        mixed: Tensor = x_BHWC + self.mlp(x_BHWC)
        return mixed.permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        return x_BCHW if self.downsample is None else self.downsample(x_BCHW)


class TinyViT(nn.Module):
    """TinyViT-5M with SAM's neck: ``[B,3,S,S]`` to ``[B,C,S/16,S/16]``.

    Args:
        img_size: S, a multiple of 16.
        out_chans: Width C of the result.
        widths: Channels of the four stages.
        depths: Blocks per stage.
        heads: Attention heads per stage (the first has none).
        windows: Window sides per stage (the first has none).
    """

    def __init__(
        self,
        *,
        img_size: int = 1024,
        out_chans: int = 256,
        widths: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (2, 4, 5, 10),
        windows: Sequence[int] = (7, 7, 14, 7),
    ) -> None:
        super().__init__()
        self.img_size = img_size
        self.patch_embed = _Stem(widths[0])
        stages: list[nn.Module] = []
        for n, width in enumerate(widths):
            blocks: list[nn.Module] = [
                _TransformerBlock(width, heads[n], windows[n]) if n else _InvertedBottleneck(width)
                for _ in range(depths[n])
            ]
            last = n == len(widths) - 1
            # The third merge widens without halving: the map stays at a sixteenth for the neck.
            stages.append(
                _Stage(blocks, None if last else _Merge(width, widths[n + 1], 1 if n == 2 else 2))
            )
        self.layers = nn.ModuleList(stages)
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x_B3SS: Tensor) -> Tensor:
        """Encode normalised images; the early feature is the output of ``layers.1``."""
        x = self.patch_embed(x_B3SS)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.neck(x)
        return y
