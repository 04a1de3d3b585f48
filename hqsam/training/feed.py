"""The image features of a training step: encoded at every step, or once for all planned views (`cache`)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from hqsam.model.hq_sam import Encoded, HQSam
from hqsam.training.batch import Batch, View, collate
from hqsam.training.loader import Item, TrainingSet, prefetch
from hqsam.training.step import parts

Steps = Iterator[tuple[Batch, Encoded | None]]


class Feed(Protocol):
    """Turns a plan into batches with the features of their images."""

    def steps(self, plan: Sequence[Sequence[Item]]) -> Steps:
        """One (batch, features) pair per step of the plan.

        The features are float32 on the model's device; None where the step itself must encode,
        because the encoder trains.
        """
        ...


@torch.no_grad()
def encode(model: HQSam, batch: Batch, *, bf16: bool = False) -> Encoded:
    """Final and early features of a batch's images by the frozen encoder, float32."""
    images = model.preprocess(batch.image_B3SS)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        found = model.encode_hq(images)
    return Encoded(found.final_BCHW.float(), found.early_BVHW.float())


def decoding_threads(workers: int) -> int:
    """`train.workers`; 0: this machine's cores, shared by its training processes."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return workers or max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@dataclass(frozen=True)
class OnlineFeed:
    """Decode, augment and encode at every step. Threads decode ahead; the order stays the plan's.

    Attributes:
        data: the training set.
        model: its encoder.
        workers: decoding threads.
        micro_batch: views per encoder call; 0: all of a step.
        bf16: whether the encoder runs under autocast.
        frozen: whether the encoder is SAM's own.
    """

    data: TrainingSet
    model: HQSam
    workers: int
    micro_batch: int = 0
    bf16: bool = False
    frozen: bool = True

    def steps(self, plan: Sequence[Sequence[Item]]) -> Steps:
        """See `Feed`."""
        for batch in self.batches(plan):
            yield batch, self.encoded(batch) if self.frozen else None

    def batches(self, plan: Sequence[Sequence[Item]]) -> Iterator[Batch]:
        """Yield the batches of a plan on the model's device; at least two are prepared ahead."""
        ahead = max(2, -(-2 * self.workers // len(plan[0]))) if plan else 0
        waiting: deque[Future[Batch]] = deque()
        # One more thread puts the views of a batch together while the others decode those of the
        # next ones.
        with ThreadPoolExecutor(self.workers) as decoders, ThreadPoolExecutor(1) as collator:
            views: deque[Future[View]] = deque()
            try:
                for items in plan:
                    mine = [decoders.submit(self.data.view, item) for item in items]
                    views.extend(mine)
                    waiting.append(collator.submit(self._collate, mine))
                    if len(waiting) > ahead:
                        yield waiting.popleft().result()
                        for _ in items:
                            views.popleft()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for queue in (views, waiting):
                    for future in queue:
                        future.cancel()

    def _collate(self, views: Sequence[Future[View]]) -> Batch:
        return collate([view.result() for view in views]).on(self.model.device)

    def encoded(self, batch: Batch) -> Encoded:
        """The features of a batch by the frozen encoder."""
        rows = parts(len(batch), self.micro_batch)
        found = [encode(self.model, batch[r], bf16=self.bf16) for r in rows]
        if len(found) == 1:
            return found[0]
        return Encoded(
            torch.cat([e.final_BCHW for e in found]), torch.cat([e.early_BVHW for e in found])
        )


@dataclass(frozen=True)
class CachedFeed:
    """Features of every planned view, 16 bits a number, in memory or in memory-mapped files.

    Attributes:
        data: the training set: the labels of a large cache are read from it again.
        rows: place of each view in the arrays.
        views: the views without their images, if they are kept.
        final: [n, C, E, E].
        early: [n, V, E, E].
        device: where the batches go.
        workers: decoding threads.
    """

    data: TrainingSet
    rows: dict[Item, int]
    views: dict[Item, View]
    final: Tensor
    early: Tensor
    device: torch.device
    workers: int

    def steps(self, plan: Sequence[Sequence[Item]]) -> Steps:
        """See `Feed`."""
        if self.views:
            loaded: Iterator[tuple[Batch, Encoded]] = map(self._load, plan)
        else:
            loaded = prefetch(self._load, plan, workers=self.workers, ahead=2 * self.workers)
        for batch, features in loaded:
            yield (
                batch,
                Encoded(
                    *(t.to(self.device).float() for t in (features.final_BCHW, features.early_BVHW))
                ),
            )

    def _load(self, items: Sequence[Item]) -> tuple[Batch, Encoded]:
        index = torch.tensor([self.rows[item] for item in items])
        views = [
            self.views[item] if self.views else without_image(self.data.view(item))
            for item in items
        ]
        return collate(views), Encoded(self.final[index], self.early[index])


def without_image(view: View) -> View:
    """The view's label and prompts alone."""
    return replace(view, image=view.image[:0, :0])
