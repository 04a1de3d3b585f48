"""Where the HQ token looks, beside SAM's mask token: Figure 6 of the paper.

The cross-attention of the mask decoder's last token-to-image layer
(``final_attn_token_to_image``), in HQ-SAM's own pass, in which both tokens take part. The paper
(section 4.3) names the layer and not how heads are joined: here it is their mean.

Shape letters: N heads; T tokens; n image positions; C, D channels of the decoder and of a head; H,
W sides of the image embedding.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from hqsam.model.hq_decoder import TokenHead
from hqsam.model.outputs import Output
from hqsam.prediction.prompt import Prompt
from hqsam.systems.sam_hq import SamHQ

F32 = NDArray[np.float32]


def token_attention(
    opened: SamHQ, image: NDArray[np.uint8], prompt: Prompt
) -> dict[str, F32] | None:
    """Attention of SAM's mask token and of the HQ token to the positions of an image.

    Args:
        opened: the model.
        image: uint8 [H, W, 3] RGB.
        prompt: what both tokens are asked to segment.

    Returns:
        ``sam`` (the token of the single mask) and ``hq_token``: float32 [H, W] of the image's size,
        resized bilinearly from the model's grid, 0 to 1, each divided by its largest value. None if
        the model has no HQ token.
    """
    head = opened.model.head
    if not isinstance(head, TokenHead):
        return None
    decoder = head.use_mask_decoder(opened.model.sam)
    frame, pixels = opened.prepare(image)
    [encoded] = opened.encode([(frame, pixels)])
    weights_NTHW = _last_layer(opened, decoder.transformer, encoded, prompt)
    # The order of the output tokens: IoU, SAM's with the single mask's first, the head's with HQ's last.
    places = {Output.sam: 1, Output.hq_token: decoder.num_mask_tokens + len(head.extra_tokens())}
    joined = {name: weights_NTHW[:, place].mean(0).numpy() for name, place in places.items()}
    return {name.value: _on_image(values, frame) for name, values in joined.items()}


def _last_layer(opened: SamHQ, transformer: Any, encoded: Any, prompt: Prompt) -> torch.Tensor:
    """The weights [N, T, H, W] of the last token-to-image layer in HQ-SAM's pass."""
    attention = transformer.final_attn_token_to_image
    seen: dict[str, torch.Tensor] = {}
    # Both modules are called whatever form of the attention `two_way` chooses. SAM's pass comes
    # before HQ-SAM's, which replaces what it left.
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in (
            ("queries", attention.q_proj),
            ("image", transformer.layers[-1].norm4),
        )
    ]
    try:
        opened.decode(encoded, [prompt])
    finally:
        for hook in hooks:
            hook.remove()
    with torch.inference_mode():
        pe_1CHW = opened.model.sam.prompt_encoder.get_dense_pe()
        keys_nC = attention.k_proj(seen["image"][0] + pe_1CHW[0].flatten(1).T)
        n_heads = attention.num_heads
        q_NTD, k_NnD = (
            torch.unflatten(x, 1, (n_heads, -1)).transpose(0, 1)
            for x in (seen["queries"][0], keys_nC)
        )
        logits_NTn = q_NTD @ k_NnD.transpose(1, 2) / q_NTD.shape[-1] ** 0.5
        weights_NTn = logits_NTn.softmax(dim=-1).float().cpu()
    return torch.unflatten(weights_NTn, 2, pe_1CHW.shape[-2:])


def _on_image(grid_HW: F32, frame: Any) -> F32:
    """From the grid over the input square to the image's own pixels, without the padding."""
    square = cv2.resize(grid_HW, (frame.size, frame.size), interpolation=cv2.INTER_LINEAR)
    height, width = frame.resized
    inside = np.ascontiguousarray(square[:height, :width])
    found = cv2.resize(inside, (frame.width, frame.height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(found / found.max(), np.float32)
