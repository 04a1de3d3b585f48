"""SAM's attention on a CPU without gradients, for images of many tokens: the same result up to rounding.

Three things cost the plain form time there, and none is arithmetic that the result needs:

- Windows at the edge are filled up with zeros (64 x 64 tokens become 70 x 70), and then projected.
  Here only real tokens are; what a zero becomes, the bias, is written in its place.
- The CPU's fused attention takes blocks of 256 queries only when it gets 768 at once, and 64 or 32
  otherwise: global attention goes head by head, 768 queries a call.
- Large tensors are made anew for each step. Here windows go by strips and buffers are used again.

Shape letters: H, W rows and columns of tokens; L = H * W; N heads; D channels per head; C = N * D; S
side of a window; T windows of a strip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hqsam.model.sam_api import get_rel_pos

TOKENS = 1024
"""Images of fewer tokens take the plain form: their tensors fit into the caches anyway."""
_QUERIES = 768


def fits(x_BHWC: Tensor) -> bool:
    """Whether this form is meant for these tokens: many, on a CPU, nothing to be kept for gradients or a graph."""
    return (
        x_BHWC.device.type == "cpu"
        and x_BHWC.shape[1] * x_BHWC.shape[2] >= TOKENS
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def attend(attention: Any, x_BHWC: Tensor, window: int) -> Tensor:
    """Attend within windows, or everywhere.

    Args:
        attention: `segment_anything`'s module, with relative positions.
        x_BHWC: Tokens, not padded.
        window: Side of the windows; 0 means all tokens.

    Returns:
        Same shape.
    """
    _, h, w, c = x_BHWC.shape
    heads = attention.num_heads
    filling_3ND = attention.qkv(x_BHWC.new_zeros(1, c)).view(3, heads, -1) if window else None
    found = []
    # Image by image: 8-bit activations then do not depend on what else is in the batch.
    for x_1HWC in torch.split(x_BHWC, 1):
        qkv_HW3ND = attention.qkv(x_1HWC).view(h, w, 3, heads, c // heads)
        out_HWND = qkv_HW3ND.new_empty(h, w, heads, c // heads)
        if filling_3ND is None:
            _everywhere(attention, qkv_HW3ND, out_HWND)
        else:
            _windows(attention, qkv_HW3ND, filling_3ND, out_HWND, window)
        found.append(attention.proj(out_HWND.view(1, h, w, c)))
    return torch.cat(found)


def _everywhere(attention: Any, qkv_HW3ND: Tensor, out_HWND: Tensor) -> None:
    """Global attention of one image, head by head."""
    h, w, _, heads, _ = qkv_HW3ND.shape
    rows_HDK = get_rel_pos(h, h, attention.rel_pos_h).to(qkv_HW3ND).transpose(1, 2)
    cols_WDK = get_rel_pos(w, w, attention.rel_pos_w).to(qkv_HW3ND).transpose(1, 2)
    out_LND = out_HWND.view(h * w, heads, -1)
    buffer = qkv_HW3ND.new_empty(_QUERIES, h, w)
    for head in range(heads):
        q, k, v = (qkv_HW3ND[:, :, part, head].contiguous() for part in range(3))
        by_row = torch.bmm(q, rows_HDK).view(h * w, h)
        by_col = torch.bmm(q.transpose(0, 1), cols_WDK).transpose(0, 1).reshape(h * w, w)
        q, k, v = (x.view(1, 1, h * w, -1) for x in (q, k, v))
        for start in range(0, h * w, _QUERIES):
            some = slice(start, start + _QUERIES)
            bias = torch.add(
                by_row[some, :, None], by_col[some, None, :], out=buffer[: len(by_row[some])]
            )
            out_LND[some, head] = functional.scaled_dot_product_attention(
                q[:, :, some], k, v, attn_mask=bias.view(1, 1, -1, h * w), scale=attention.scale
            )[0, 0]


def _windows(
    attention: Any, qkv_HW3ND: Tensor, filling_3ND: Tensor, out_HWND: Tensor, side: int
) -> None:
    """Attention within the windows of one image, a strip of windows at a time."""
    h, w, _, heads, width = qkv_HW3ND.shape
    count = -(-w // side)
    strip = qkv_HW3ND.new_empty(3, count, heads, side, side, width)
    bias = qkv_HW3ND.new_empty(count * heads, side, side, side, side)
    rows = get_rel_pos(side, side, attention.rel_pos_h).to(strip)
    cols = get_rel_pos(side, side, attention.rel_pos_w).to(strip)
    for top in range(0, h, side):
        part = qkv_HW3ND[top : top + side]
        if part.shape[0] < side or w % side:
            strip[:] = filling_3ND[:, None, :, None, None]
        for n in range(count):
            real = part[:, n * side : (n + 1) * side]
            strip[:, n, :, : real.shape[0], : real.shape[1]] = real.permute(2, 3, 0, 1, 4)
        q_MSSD = strip[0].flatten(0, 1)
        by_row = torch.einsum("mhwd,hkd->mhwk", q_MSSD, rows)
        by_col = torch.einsum("mhwd,wkd->mhwk", q_MSSD, cols)
        torch.add(by_row[..., :, None], by_col[..., None, :], out=bias)
        q, k, v = strip.view(3, 1, count * heads, side * side, width)
        found = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=bias.view(1, count * heads, side * side, -1), scale=attention.scale
        ).view(count, heads, side, side, width)
        for n in range(count):
            out = out_HWND[top : top + side, n * side : (n + 1) * side]
            out[:] = found[n, :, : out.shape[0], : out.shape[1]].permute(1, 2, 0, 3)
