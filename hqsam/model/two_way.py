"""SAM's two-way transformer, image-side projections folded into the tokens: same result, half the work.

In the attention between T tokens and the n image positions, SAM projects all n positions (4096) to
keys, values or queries. A projection is linear, so it can as well be applied to the other side: ``q
. (W x) = (W' q) . x``. There are far fewer tokens than positions, and with N heads the image is
then multiplied with N * T vectors instead of with the width of the projection: 64 instead of 128
for a box prompt. A key bias shifts all logits of a query alike and drops out of the softmax; a
value bias passes through, because attention weights add up to one.

Only ``segment_anything``'s parameters are used, and its own modules wherever nothing can be saved.

Shape letters: P prompts; T tokens; n image positions; C width; N heads; D channels per head inside
the attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def two_way(
    transformer: Any, *, image_BnC: Tensor, pe_1nC: Tensor, tokens_PTC: Tensor
) -> tuple[Tensor, Tensor]:
    """``TwoWayTransformer.forward`` on flattened maps.

    Args:
        transformer: ``segment_anything`` ``TwoWayTransformer``.
        image_BnC: Image embedding plus dense prompt embedding, B = P, or B = 1 for all prompts.
        pe_1nC: Positional encoding of the image positions.
        tokens_PTC: Output tokens and prompt tokens.

    Returns:
        Tokens ``[P,T,C]`` and image ``[P,n,C]``.
    """
    queries, image, image_pe = tokens_PTC, image_BnC, image_BnC + pe_1nC
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            queries = layer.norm1(layer.self_attn(q=queries, k=queries, v=queries))
        else:
            q = queries + tokens_PTC
            queries = layer.norm1(queries + layer.self_attn(q=q, k=q, v=queries))
        attended = _tokens_to_image(
            layer.cross_attn_token_to_image, queries + tokens_PTC, image, image_pe
        )
        queries = layer.norm2(queries + attended)
        queries = layer.norm3(queries + layer.mlp(queries))
        image = layer.norm4(
            _add_attention_to_tokens(
                layer.cross_attn_image_to_token, image, image_pe, queries + tokens_PTC, queries
            )
        )
        image_pe = image + pe_1nC
    attended = _tokens_to_image(
        transformer.final_attn_token_to_image, queries + tokens_PTC, image, image_pe
    )
    return transformer.norm_final_attn(queries + attended), image


def _tokens_to_image(
    attention: Any, q_PTC: Tensor, image_BnC: Tensor, image_pe_BnC: Tensor
) -> Tensor:
    """Tokens attend to the image (keys with, values without positional encoding); ``[P,T,C]``."""
    p, t, c = q_PTC.shape
    # Folding does not pay where one image for many prompts is projected once, nor where many tokens
    # are wider than the projection. An exported graph is for any number of tokens: published form.
    if (
        torch.compiler.is_exporting()
        or (image_BnC.shape[0] == 1 and p > 1)
        or attention.num_heads * t >= attention.internal_dim
    ):
        plain: Tensor = attention(q=q_PTC, k=image_pe_BnC, v=image_BnC)
        return plain
    heads = attention.num_heads
    d = attention.internal_dim // heads
    q_PNTD = attention.q_proj(q_PTC).view(p, t, heads, d).transpose(1, 2)
    key_NDC = attention.k_proj.weight.view(heads, d, c)
    folded_PmC = (q_PNTD @ key_NDC / d**0.5).reshape(p, heads * t, c)
    weights_Pmn = (folded_PmC @ image_pe_BnC.transpose(1, 2)).softmax(dim=-1)
    seen_PNTC = (weights_Pmn @ image_BnC).view(p, heads, t, c)
    value_NCD = attention.v_proj.weight.view(heads, d, c).transpose(1, 2)
    value_PNTD = seen_PNTC @ value_NCD + attention.v_proj.bias.view(heads, 1, d)
    out: Tensor = attention.out_proj(value_PNTD.transpose(1, 2).reshape(p, t, heads * d))
    return out


def _add_attention_to_tokens(
    attention: Any, image_BnC: Tensor, image_pe_BnC: Tensor, k_PTC: Tensor, v_PTC: Tensor
) -> Tensor:
    """The image plus its attention to the tokens; ``[P,n,C]``."""
    p, t, c = k_PTC.shape
    if torch.compiler.is_exporting() or attention.num_heads * t >= attention.internal_dim:
        attended: Tensor = attention(q=image_pe_BnC, k=k_PTC, v=v_PTC)
        return image_BnC + attended
    heads = attention.num_heads
    d = attention.internal_dim // heads
    k_PNTD = attention.k_proj(k_PTC).view(p, t, heads, d).transpose(1, 2) / d**0.5
    v_PNTD = attention.v_proj(v_PTC).view(p, t, heads, d).transpose(1, 2)
    # Positions last: a softmax over 8 tokens side by side in memory costs as much as two of the
    # matrix products.
    weights_Pmn = _query_logits(attention, image_pe_BnC, k_PNTD).softmax(dim=2).flatten(1, 2)
    out_NDC = attention.out_proj.weight.view(c, heads, d).permute(1, 2, 0)
    # The weights of each head add up to one, so the bias can be spread over the values.
    values_PNTC = v_PNTD @ out_NDC + attention.out_proj.bias / heads
    return torch.baddbmm(
        image_BnC, weights_Pmn.transpose(1, 2), values_PNTC.reshape(p, heads * t, c)
    )


def _query_logits(attention: Any, image_pe_BnC: Tensor, k_PNTD: Tensor) -> Tensor:
    """Logits ``[P,N,T,n]`` of the image's queries against the tokens' keys, already scaled."""
    p, heads, t, d = k_PNTD.shape
    if image_pe_BnC.shape[0] == 1 and p > 1:  # project the one image once
        q_nND = attention.q_proj(image_pe_BnC)[0].view(-1, heads, d)
        k_NqD = k_PNTD.transpose(0, 1).reshape(heads, p * t, d)  # q: all tokens of all prompts
        shared: Tensor = (k_NqD @ q_nND.permute(1, 2, 0)).view(heads, p, t, -1).transpose(0, 1)
        return shared
    query_NDC = attention.q_proj.weight.view(heads, d, -1)
    bias_PNT = (k_PNTD @ attention.q_proj.bias.view(heads, d, 1))[..., 0]
    folded_PmC = (k_PNTD @ query_NDC).reshape(p, heads * t, -1)
    logits_Pmn = torch.baddbmm(bias_PNT.reshape(p, -1, 1), folded_PmC, image_pe_BnC.transpose(1, 2))
    return torch.unflatten(logits_Pmn, 1, (heads, t))
