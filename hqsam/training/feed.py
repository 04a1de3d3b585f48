"""Where a training step's image features come from: encoded at every step, or once for all planned views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hqsam.model.hq_sam import Encoded, HQSam
from hqsam.training.batch import Batch, View, collate
from hqsam.training.loader import Item, TrainingSet, prefetch

Report = Callable[[int, int, str], None]
Steps = Iterator[tuple[Batch, Encoded]]


class Feed(Protocol):
    """Turns a plan into batches with the features of their images."""

    def steps(self, plan: Sequence[Sequence[Item]]) -> Steps:
        """One (batch, features) pair per step of the plan; the features are float32 on the model's device."""
        ...


@torch.no_grad()
def encode(model: HQSam, batch: Batch) -> Encoded:
    """Final and early features of a batch's images."""
    return model.encode(model.preprocess(batch.image_B3SS))


@dataclass(frozen=True)
class OnlineFeed:
    """Decode, augment and encode at every step. Threads decode ahead; the order stays the plan's."""

    data: TrainingSet
    model: HQSam
    workers: int

    def steps(self, plan: Sequence[Sequence[Item]]) -> Steps:
        """See `Feed`."""
        for batch in prefetch(self._load, plan, workers=self.workers, ahead=2 * self.workers):
            yield batch, encode(self.model, batch)

    def _load(self, items: Sequence[Item]) -> Batch:
        return collate([self.data.view(item) for item in items])


@dataclass(frozen=True)
class CachedFeed:
    """Features of every planned view, float16, in memory or in a memory-mapped file.

    Attributes:
        rows: place of each view in the arrays.
        views: the views without their images.
        final: [n, C, E, E].
        early: [n, V, E, E].
        device: where the batches go.
    """

    rows: dict[Item, int]
    views: list[View]
    final: Tensor
    early: Tensor
    device: torch.device

    def steps(self, plan: Sequence[Sequence[Item]]) -> Steps:
        """See `Feed`."""
        for items in plan:
            rows = [self.rows[item] for item in items]
            index = torch.tensor(rows)
            features = Encoded(*(t[index].to(self.device).float() for t in (self.final, self.early)))
            yield collate([self.views[r] for r in rows]), features


def _array(shape: tuple[int, ...], folder: Path, name: str, in_memory: bool) -> Tensor:
    if in_memory:
        return torch.empty(shape, dtype=torch.float16)
    path = folder / name
    return torch.from_numpy(np.memmap(path, np.float16, "w+", shape=shape))


def cached_feed(
    data: TrainingSet, model: HQSam, items: Sequence[Item], *,
    batch: int, workers: int, scratch: Path, cache_gib: float, report: Report,
) -> CachedFeed:  # fmt: skip
    """Encode all `items` once.

    Args:
        data: the training set.
        model: the frozen encoder.
        items: every view that any epoch will ask for.
        batch: views per encoder call.
        workers: decoding threads.
        scratch: folder for the memory-mapped files when the features exceed `cache_gib`; they are the caller's to
            remove.
        cache_gib: limit for keeping them in memory.
        report: progress.
    """
    b = model.backbone
    shapes = [(len(items), c, b.embedding_size, b.embedding_size) for c in (b.decoder_dim, b.vit_dim)]
    small = sum(2 * int(np.prod(s)) for s in shapes) <= cache_gib * 2**30
    final, early = (
        _array(s, scratch, f"features-{n}.f16", small) for s, n in zip(shapes, ("final", "early"), strict=True)
    )
    views: list[View] = []
    chunks = [items[i : i + batch] for i in range(0, len(items), batch)]
    for loaded in prefetch(lambda c: [data.view(i) for i in c], chunks, workers=workers, ahead=2 * workers):
        at = slice(len(views), len(views) + len(loaded))
        encoded = encode(model, collate(loaded))
        final[at], early[at] = encoded.final_BCHW.half().cpu(), encoded.early_BVHW.half().cpu()
        views += [replace(v, image=v.image[:0, :0]) for v in loaded]
        report(len(views), len(items), "encode")
    return CachedFeed({item: n for n, item in enumerate(items)}, views, final, early, model.device)
