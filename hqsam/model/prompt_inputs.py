"""From prompts as arrays to tokens: the one place where prompts of any kind are embedded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hqsam.model.hq_decoder import Prompts
from hqsam.model.hq_sam import HQSam
from hqsam_datasets.prompts.base import PromptArrays


class Signed(Protocol):
    """A prompt that tells with which others it can be embedded."""

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal for prompts of the same parts and number of points."""
        ...


def group(prompts: Sequence[Signed]) -> list[list[int]]:
    """Find the prompts that can be embedded together.

    Args:
        prompts: of any kinds.

    Returns:
        Their indices, one list per signature, in the order of the signatures.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, prompt in enumerate(prompts):
        groups.setdefault(prompt.signature, []).append(number)
    return [groups[key] for key in sorted(groups)]


def embed(model: HQSam, prompts: Sequence[PromptArrays]) -> Prompts:
    """Embed prompts of one signature.

    Args:
        model: Whose prompt encoder to use.
        prompts: P of them, in pixels of the S x S network input; masks [m, m] as the decoder is to
            get them.

    Returns:
        Sparse and dense embeddings.
    """

    def stacked(values: list[Any]) -> Tensor:
        return torch.as_tensor(np.stack(values), dtype=torch.float32, device=model.device)

    first = prompts[0]
    labels = torch.as_tensor(np.stack([prompt.labels for prompt in prompts]), device=model.device)
    return model.embed_prompts(
        boxes_P4=None if first.box is None else stacked([prompt.box for prompt in prompts]),
        points_PN2=stacked([prompt.points for prompt in prompts]) if len(first.points) else None,
        labels_PN=labels if len(first.points) else None,
        masks_P1hw=None
        if first.mask is None
        else stacked([prompt.mask for prompt in prompts])[:, None],
    )
