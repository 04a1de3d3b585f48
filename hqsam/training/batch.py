"""`View`, one training example as the loader makes it, and `Batch`, what the model sees. `collate` is the only bridge.

Shape letters: B views; S side of the network input; m side of mask prompts; N points, padded.
"""

# ruff: noqa: N815 -- shape suffixes are the house style, attributes included

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PromptKind = Literal["box", "point", "noise_mask"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)


@dataclass(frozen=True, eq=False)
class View:
    """One augmented view of a sample with its prompt.

    Attributes:
        key: the sample.
        view: number of the view.
        image: uint8 [S, S, 3] RGB.
        mask: soft label, uint8 [S, S], 0..255.
        prompt: which of the three prompts trains.
        box: xyxy, maxima inclusive, float32 [4], pixels of the view.
        points: foreground points (x, y), float32 [N, 2], pixels of the view.
        noise: coarse mask, uint8 [m, m], 0/255.
    """

    key: str
    view: int
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    prompt: PromptKind
    box: NDArray[np.float32]
    points: NDArray[np.float32]
    noise: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Batch:
    """Views as tensors.

    Attributes:
        keys: sample keys.
        image_B3SS: uint8 RGB.
        label_B1SS: soft label, float32 in 0..1: in-between values are used by the loss.
        prompts: kind per view.
        box_B4: float32.
        points_BN2: float32; padding is 0.
        point_labels_BN: 1 foreground, -1 padding.
        noise_B1mm: float32 0/255: the official recipe feeds the binary picture itself, not logits.
    """

    keys: tuple[str, ...]
    image_B3SS: Tensor
    label_B1SS: Tensor
    prompts: tuple[PromptKind, ...]
    box_B4: Tensor
    points_BN2: Tensor
    point_labels_BN: Tensor
    noise_B1mm: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> Batch:
        """Some of the views."""
        return Batch(
            self.keys[rows], self.image_B3SS[rows], self.label_B1SS[rows], self.prompts[rows], self.box_B4[rows],
            self.points_BN2[rows], self.point_labels_BN[rows], self.noise_B1mm[rows],
        )  # fmt: skip

    def on(self, device: torch.device) -> Batch:
        """The batch with its large tensors on a device; meant for a thread beside the one that computes.

        A GPU gets them through page-locked memory on a stream of their own, so that its work goes on meanwhile.
        """
        if device.type != "cuda":
            return self
        large = (self.image_B3SS, self.label_B1SS, self.noise_B1mm)
        stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.cuda.stream(stream):
            copied = [tensor.pin_memory().to(device, non_blocking=True) for tensor in large]
        stream.synchronize()
        for tensor in copied:  # they were made on that stream, but are used and freed on the default one
            tensor.record_stream(torch.cuda.default_stream(device))
        image, label, noise = copied
        return replace(self, image_B3SS=image, label_B1SS=label, noise_B1mm=noise)

    def rows(self, kind: PromptKind) -> Tensor:
        """Indices of the views with this kind of prompt, int64."""
        return torch.tensor([i for i, k in enumerate(self.prompts) if k == kind], dtype=torch.int64)


def _pad_points(views: Sequence[View]) -> tuple[Tensor, Tensor]:
    n = max(1, *(len(v.points) for v in views))
    points, labels = torch.zeros(len(views), n, 2), torch.full((len(views), n), -1.0)
    for i, view in enumerate(views):
        points[i, : len(view.points)] = torch.from_numpy(view.points)
        labels[i, : len(view.points)] = 1
    return points, labels


def collate(views: Sequence[View]) -> Batch:
    """Stack views of one size.

    Raises:
        ValueError: no views, or sizes differ.
    """
    if not views:
        raise ValueError("a batch needs at least one view")
    points, labels = _pad_points(views)
    return Batch(
        keys=tuple(v.key for v in views),
        image_B3SS=torch.from_numpy(np.stack([v.image for v in views])).permute(0, 3, 1, 2).contiguous(),
        label_B1SS=torch.from_numpy(np.stack([v.mask for v in views]))[:, None].float() / 255,
        prompts=tuple(v.prompt for v in views),
        box_B4=torch.from_numpy(np.stack([v.box for v in views])),
        points_BN2=points,
        point_labels_BN=labels,
        noise_B1mm=torch.from_numpy(np.stack([v.noise for v in views]))[:, None].float(),
    )
