"""Attention maps of the two tokens, against `segment_anything`'s own transformer with a hook in its last layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from hqsam.model import hq_decoder
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.prompt import Prompt
from hqsam.prediction.token_attention import token_attention
from hqsam.systems.sam_hq import SamHQ
from tests.hqsam.models import small_model, soften

PROMPTS = (Prompt(box=(20, 10, 90, 50)), Prompt(points=((40, 30),), labels=(1,)))


def image(height: int, width: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("resize", ["stretch", "longest_side"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=["box", "point"])
def test_the_maps_are_those_of_the_published_transformer(
    prompt: Prompt, resize: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 x 128 pixels fill the input square when stretched, and its upper half otherwise."""
    net = small_model()
    soften(net.sam.mask_decoder)
    opened = SamHQ(net, PredictOptions(device="cpu", resize=resize))
    found = token_attention(opened, image(64, 128), prompt)
    seen: list[torch.Tensor] = []

    def record(attention: Any, _args: Any, given: dict[str, torch.Tensor]) -> None:
        q, k = (
            attention._separate_heads(project(given[name]), attention.num_heads)
            for name, project in (("q", attention.q_proj), ("k", attention.k_proj))
        )
        logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        seen.append(logits.softmax(3)[0].mean(0))

    def published(
        transformer: Any, *, image_BnC: torch.Tensor, pe_1nC: torch.Tensor, tokens_PTC: torch.Tensor
    ) -> Any:
        maps = (x.transpose(1, 2).unflatten(2, (8, 8)) for x in (image_BnC, pe_1nC))
        hook = transformer.final_attn_token_to_image.register_forward_pre_hook(
            record, with_kwargs=True
        )
        with hook:
            return transformer(*maps, tokens_PTC)

    monkeypatch.setattr(hq_decoder, "two_way", published)
    again = token_attention(opened, image(64, 128), prompt)
    assert found is not None and again is not None and len(seen) == 2, "SAM's pass, then HQ-SAM's"
    assert seen[-1].sum(1).numpy() == pytest.approx(1)
    for name, place in (("sam", 1), ("hq_token", 5)):
        grid = seen[-1][place].view(1, 1, 8, 8)
        square = functional.interpolate(grid, (128, 128), mode="bilinear")
        part = square if resize == "stretch" else square[:, :, :64]
        wanted = functional.interpolate(part, (64, 128), mode="bilinear")[0, 0]
        assert found[name] == pytest.approx((wanted / wanted.max()).numpy(), abs=2e-5)
        assert again[name] == pytest.approx(found[name], abs=2e-5)
    assert np.abs(found["sam"] - found["hq_token"]).max() > 0.05
    assert not opened.model.sam.mask_decoder.transformer.layers[-1].norm4._forward_hooks


def test_a_model_without_an_hq_token_has_no_maps() -> None:
    net = build_model(ModelOptions(backbone="nano", variant="context_tokens"), seed=0).eval()
    opened = SamHQ(net, PredictOptions(device="cpu"))
    assert token_attention(opened, image(64, 128), PROMPTS[0]) is None
