"""Exact fused attention for SAM's ViT: no dense attention or bias matrix is ever made.

SAM adds a decomposed relative position to the attention logits: for query i and key j, ``q_i .
R_h[row i - row j]`` plus ``q_i . R_w[col i - col j]``. Two exact ways around the L x L bias, both
through ``scaled_dot_product_attention``:

- *folded* (GPUs): both terms are inner products themselves. With ``a_i[r] = q_i . R_h[row i - r]``
  for every row r, the first is ``a_i . onehot(row j)``. So the query gets H + W more channels (a
  and its column twin) and the key the two one-hot vectors; one call of a flash kernel does the
  rest.
- *by rows* (CPUs): the queries of a few rows at a time, with their part of the bias. Wider heads
  cost a CPU more than the few extra calls do: on one core, one global block of ViT-B took 3.5 s as
  published, 2.0 s folded, 1.3 s by rows. Without gradients, for images of many tokens, `cpu_attention`
  goes further.

Shape letters: B windows or images; N heads; H, W rows and columns; L = H * W tokens; D channels per
head; E = D + H + W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hqsam.model import cpu_attention
from hqsam.model.sam_api import Attention, Block, get_rel_pos

_ALIGN = 8  # fused kernels want head widths that are multiples of eight
_BIAS_VALUES = 1 << 22  # of the part of the bias that exists at one time: 16 MB
_MLP_TOKENS = (
    1024  # that go through a block's MLP at one time on a CPU: 12 MB of ViT-B's wide layer
)


class FusedAttention(Attention):  # type: ignore[misc]  # segment_anything is untyped
    """``segment_anything``'s encoder attention with the same parameters and the same result up to rounding."""

    def forward(self, x_BHWC: Tensor, window: int | None = None) -> Tensor:
        """Attend over the H x W tokens of each window.

        Args:
            x_BHWC: Tokens, C = N * D.
            window: Side of the windows that the tokens of whole images are to be split into, 0 for
                none (`FusedBlock`); None: B counts windows.

        Returns:
            Same shape.
        """
        if window is not None:
            return cpu_attention.attend(self, x_BHWC, window)
        b, h, w, c = x_BHWC.shape
        qkv = self.qkv(x_BHWC).view(b, h * w, 3, self.num_heads, c // self.num_heads)
        q_BNLD, k_BNLD, v_BNLD = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if not self.use_rel_pos:
            out = functional.scaled_dot_product_attention(q_BNLD, k_BNLD, v_BNLD, scale=self.scale)
        else:
            # Inner products of every query with the relative positions of every row and column.
            # einsum leaves its results permuted, which would make adding them ten times slower.
            q_BNHWD = torch.unflatten(q_BNLD, 2, (h, w))
            rows_HKD = get_rel_pos(h, h, self.rel_pos_h).to(q_BNHWD)
            cols_WKD = get_rel_pos(w, w, self.rel_pos_w).to(q_BNHWD)
            bias = (
                torch.einsum("bnhwd,hkd->bnhwk", q_BNHWD, rows_HKD).contiguous(),
                torch.einsum("bnhwd,wkd->bnhwk", q_BNHWD, cols_WKD).contiguous(),
            )
            # An exported graph has no loops: it gets the form that is one call.
            by_rows = x_BHWC.device.type == "cpu" and not torch.compiler.is_exporting()
            attend = _attend_by_rows if by_rows else _attend_folded
            out = attend(q_BNLD, k_BNLD, v_BNLD, bias, self.scale)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(b, h, w, c))
        return projected


class FusedBlock(Block):  # type: ignore[misc]  # segment_anything is untyped
    """``segment_anything``'s encoder block; on a CPU without gradients in the form of `cpu_attention`."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Attend, then the MLP; same shape."""
        if not (self.attn.use_rel_pos and cpu_attention.fits(x_BHWC)):
            plain: Tensor = super().forward(x_BHWC)
            return plain
        # A new tensor: the input may be a feature that somebody keeps. From here on it is added to.
        out: Tensor = x_BHWC + self.attn(self.norm1(x_BHWC), window=self.window_size)
        for image in out.flatten(1, 2):
            for some in torch.split(image, _MLP_TOKENS):
                some += self.mlp(self.norm2(some))
        return out


def _attend_by_rows(
    q: Tensor, k: Tensor, v: Tensor, bias: tuple[Tensor, Tensor], scale: float
) -> Tensor:
    """q, k, v ``[B,N,L,D]``, bias ``[B,N,H,W,H]`` and ``[B,N,H,W,W]``; ``[B,N,L,D]`` comes back."""
    rows_BNHWK, cols_BNHWK = bias
    b, n, h, w, _ = rows_BNHWK.shape
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = torch.empty_like(q)
    step = min(h, max(1, _BIAS_VALUES // (b * n * w * h * w)))
    # One buffer for all parts, but not where autograd has to keep them.
    buffer = None if torch.is_grad_enabled() else q.new_empty(b, n, step, w, h, w)
    for start in range(0, h, step):
        rows = slice(start, min(start + step, h))
        row_part, col_part = rows_BNHWK[:, :, rows, :, :, None], cols_BNHWK[:, :, rows, :, None, :]
        room = None if buffer is None else buffer[:, :, : rows.stop - rows.start]
        part = torch.add(row_part, col_part, out=room)
        queries = slice(rows.start * w, rows.stop * w)
        out[:, :, queries] = functional.scaled_dot_product_attention(
            q[:, :, queries], k, v, attn_mask=part.reshape(b, n, -1, h * w), scale=scale
        )
    return out


def _attend_folded(
    q: Tensor, k: Tensor, v: Tensor, bias: tuple[Tensor, Tensor], scale: float
) -> Tensor:
    """The same in one call, with the bias in extra channels."""
    rows_BNHWK, cols_BNHWK = bias
    b, n, h, w, _ = rows_BNHWK.shape
    channels = q.shape[-1] + h + w
    # The values are padded too: the fused kernels want one head width, a multiple of eight, for all
    # three.
    width = -(-channels // _ALIGN) * _ALIGN
    # `[L, H + W]`: one-hot row and one-hot column of each token
    rows = torch.eye(h, dtype=q.dtype, device=q.device).repeat_interleave(w, dim=0)
    cols = torch.eye(w, dtype=q.dtype, device=q.device).repeat(h, 1)
    position = torch.cat([rows, cols], dim=1).expand(b, n, -1, -1)
    wide_q = torch.cat([q * scale, rows_BNHWK.flatten(2, 3), cols_BNHWK.flatten(2, 3)], dim=-1)
    wide_k = torch.cat([k, position], dim=-1)
    if not torch.compiler.is_exporting():
        wide_q, wide_k, v = (
            functional.pad(x, (0, width - x.shape[-1])) for x in (wide_q, wide_k, v)
        )
    return functional.scaled_dot_product_attention(wide_q, wide_k, v, scale=1.0)[..., : q.shape[-1]]


def fuse_attention(encoder: Any) -> int:
    """Switch an image encoder's attention blocks to the fused form; parameters and state dict stay as they are.

    Args:
        encoder: ``ImageEncoderViT``, or any module (one without such blocks is left alone).

    Returns:
        Number of blocks switched.
    """
    found = [module for module in encoder.modules() if type(module) is Attention]
    for module in found:
        module.__class__ = FusedAttention
    for module in encoder.modules():
        if type(module) is Block:
            module.__class__ = FusedBlock
    return len(found)
