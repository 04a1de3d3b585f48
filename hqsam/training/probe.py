"""How many views go through the GPU at once: tried out with a real pass before the training begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from hqsam.training.batch import View, collate
from hqsam.training.feed import decoding_threads, encode
from hqsam.training.step import Step

_BATCHES = 4
"""Batches on the GPU at a time: the one of the step, two that wait, one that is being copied."""


def largest_fitting(share: int, fits: Callable[[int], bool]) -> int:
    """The largest of `share`, its half, its quarter, ... that fits; 1 if none of the others does.

    Args:
        share: views of one process in a step.
        fits: tries a number of views.
    """
    size = share
    while size > 1 and not fits(size):
        size = (size + 1) // 2
    return size


def reserve(step: Step, view: View, share: int, *, n_held_out: int) -> int:
    """Bytes that a run needs beside a pass.

    Adam's moments and what a step of it or the exchange between processes takes for a moment, the
    average, batches in the making, and the features of the held-out slice.

    Args:
        step: of the run.
        view: any view.
        share: views of one process in a step.
        n_held_out: samples of the validation slice.
    """
    model, backbone = step.model, step.model.backbone
    trained = sum(p.numel() * p.element_size() for p in model.trainable().values())
    # Of a batch, the picture (a byte a value) and its label (four bytes) are on the device.
    per_view = view.image.nbytes + 4 * view.mask.size
    features = 4 * (backbone.decoder_dim + backbone.vit_dim) * backbone.embedding_size**2
    if model.head.changes_encoder:
        features *= 2
    views = max(
        _BATCHES * share, 2 * (share + decoding_threads(step.options.workers))
    )  # see OnlineFeed.batches
    return trained * (5 if step.options.ema else 4) + views * per_view + n_held_out * features


@contextlib.contextmanager
def _taken(n_bytes: int, device: torch.device) -> Iterator[None]:
    """The container does not have this much memory."""
    room = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    yield
    del room


def micro_batch(step: Step, view: View, share: int, *, frozen: bool, n_held_out: int = 0) -> int:
    """Views per pass for `micro_batch: auto`.

    Args:
        step: of the run; its gradients are cleared afterwards.
        view: any view: all have one size.
        share: views of one process in a step.
        frozen: whether the encoder is SAM's own.
        n_held_out: samples of the validation slice, whose features lie on the GPU during the steps.

    Returns:
        0 (the share at once) on a CPU, where memory does not end with an error.
    """
    if step.group.device.type != "cuda":
        return 0
    spare = reserve(step, view, share, n_held_out=n_held_out)

    def fits(size: int) -> bool:
        generator = torch.Generator().manual_seed(0)
        try:
            with _taken(spare, step.model.device):
                batch = collate([view] * size)
                features = (
                    encode(step.model, batch, bf16=step.options.precision == "bf16")
                    if frozen
                    else None
                )
                step.gradients(generator, batch, features, at="the memory probe")
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            step.model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return True

    found = torch.tensor([float(largest_fitting(share, fits))])
    return int(min(float(t) for t in step.group.gather(found)))
