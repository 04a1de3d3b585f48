"""`View`, one training example as the loader makes it, and `Batch`, what the model sees. `collate` is the only bridge.

Shape letters: B views; S side of the network input.
"""

# ruff: noqa: N815 -- shape suffixes are the house style, attributes included

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqsam_datasets.prompts.base import PromptArrays


@dataclass(frozen=True, eq=False)
class View:
    """One augmented view of a sample with its prompt.

    Attributes:
        key: the sample.
        view: number of the view.
        image: uint8 [S, S, 3] RGB.
        mask: soft label, uint8 [S, S], 0..255.
        prompt: the kind of the prompt that trains.
        given: that prompt, in pixels of the view.
    """

    key: str
    view: int
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    prompt: str
    given: PromptArrays


@dataclass(frozen=True, eq=False)
class Batch:
    """Views as tensors, with their prompts.

    Attributes:
        keys: sample keys.
        image_B3SS: uint8 RGB.
        label_B1SS: soft label, float32 in 0..1: in-between values are used by the loss.
        prompts: kind per view.
        given: prompt per view: kinds differ in their parts, so they are stacked only where they are
            embedded.
    """

    keys: tuple[str, ...]
    image_B3SS: Tensor
    label_B1SS: Tensor
    prompts: tuple[str, ...]
    given: tuple[PromptArrays, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> Batch:
        """Some of the views."""
        return Batch(
            self.keys[rows],
            self.image_B3SS[rows],
            self.label_B1SS[rows],
            self.prompts[rows],
            self.given[rows],
        )

    def on(self, device: torch.device) -> Batch:
        """The batch with its large tensors on a device; meant for a thread beside the one that computes.

        A GPU gets them through page-locked memory on a stream of their own, so that its work goes
        on meanwhile.
        """
        if device.type != "cuda":
            return self
        large = (self.image_B3SS, self.label_B1SS)
        stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.cuda.stream(stream):
            copied = [tensor.pin_memory().to(device, non_blocking=True) for tensor in large]
        stream.synchronize()
        for (
            tensor
        ) in copied:  # they were made on that stream, but are used and freed on the default one
            tensor.record_stream(torch.cuda.default_stream(device))
        image, label = copied
        return replace(self, image_B3SS=image, label_B1SS=label)


def collate(views: Sequence[View]) -> Batch:
    """Stack views of one size.

    Raises:
        ValueError: no views, or sizes differ.
    """
    if not views:
        raise ValueError("a batch needs at least one view")
    return Batch(
        keys=tuple(v.key for v in views),
        image_B3SS=torch.from_numpy(np.stack([v.image for v in views]))
        .permute(0, 3, 1, 2)
        .contiguous(),
        label_B1SS=torch.from_numpy(np.stack([v.mask for v in views]))[:, None].float() / 255,
        prompts=tuple(v.prompt for v in views),
        given=tuple(v.given for v in views),
    )
