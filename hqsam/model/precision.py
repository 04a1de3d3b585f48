"""In which arithmetic an image encoder computes: float32, bfloat16 or 8-bit integers.

`int8` is for CPUs: the linear layers of the encoder with 8-bit weights, a scale for each output
channel, and activations that are rounded to 8 bits by the range of each call ("dynamic"). The sums
are exact, so that threads do not matter; the rest is float32. It changes masks more than bfloat16
does (docs/benchmarks.md) and is only ever used by name.

bfloat16 pays on a CPU that has matrix units for it (AMX). With vector instructions alone, also
those made for bfloat16, it takes several times as long as float32: `auto` measures.
"""

from __future__ import annotations

import time
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqsam_base.errors import UserError

Precision = Literal["auto", "float32", "bfloat16", "int8"]
_ENGINE = "onednn"
_WORTH = 1.5  # times float32's rate from which `auto` takes bfloat16: far from both that occur, 0.2 and 6
_SHAPE = (1024, 768, 3072)  # tokens and widths of one of ViT-B's layers


def choose(precision: Precision, device: torch.device) -> tuple[Precision, str]:
    """Resolve `auto`, and refuse what a device cannot do.

    Args:
        precision: what was asked for.
        device: of the encoder.

    Returns:
        A precision other than `auto`, and what it was chosen by; empty if it was asked for.

    Raises:
        UserError: `int8` on a GPU, or where torch has no integer kernels.
    """
    if precision == "int8" and device.type != "cpu":
        raise UserError(
            f"8-bit integers are for CPUs, the device is {device.type}",
            key="predict.precision",
            cure="use bfloat16, or device: cpu",
        )
    if precision == "int8" and _ENGINE not in torch.backends.quantized.supported_engines:
        raise UserError(
            f"this torch has no {_ENGINE} kernels for 8-bit integers",
            key="predict.precision",
            cure="use float32",
        )
    if precision != "auto":
        return precision, ""
    ratio = bfloat16_rate(device)
    chosen: Precision = "bfloat16" if ratio >= _WORTH else "float32"
    return chosen, f"a layer in bfloat16 runs at {ratio:.1f} times the rate of float32 here"


def bfloat16_rate(device: torch.device) -> float:
    """Measure how many times as fast as in float32 a linear layer of ViT-B is in bfloat16 on a device."""
    tokens, width, wide = _SHAPE
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = (torch.ones(n, width, dtype=dtype, device=device) for n in (tokens, wide))
        rounds = [_seconds(x, weight) for _ in range(5)]
        seconds.append(min(rounds))
    return seconds[0] / seconds[1]


def _seconds(x: Tensor, weight: Tensor) -> float:
    start = time.perf_counter()
    # Reading a number of the result waits for a GPU.
    functional.linear(x, weight)[0, 0].item()
    return time.perf_counter() - start


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights by output channel and activations rounded by the range of each call.

    Args:
        layer: in float32.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach()
        scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        zero = torch.zeros(len(scale), dtype=torch.int64)
        with warnings.catch_warnings():
            # Quantised tensors are deprecated in torch 2.13; constraints.txt holds that release.
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scale.double(), zero, 0, torch.qint8)
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = _ENGINE
        try:
            self._packed = torch.ops.quantized.linear_prepack(
                rounded, None if layer.bias is None else layer.bias.detach()
            )
        finally:
            torch.backends.quantized.engine = before
        # Without instructions that add products of bytes up in 32 bits, these saturate at 16.
        self._narrow = not torch.cpu._is_vnni_supported()

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``, float32."""
        found: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, self._narrow)
        return found


def use_int8(encoder: Any) -> int:
    """Replace the linear layers of an image encoder; returns how many.

    Args:
        encoder: on the CPU, in float32. It cannot be saved or trained any more.
    """
    found = [
        (module, name, child)
        for module in encoder.modules()
        for name, child in module.named_children()
        if type(child) is nn.Linear
    ]
    for module, name, child in found:
        setattr(module, name, Int8Linear(child))
    return len(found)
