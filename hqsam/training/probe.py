"""How many views go through the GPU at once: tried out with a real pass before the training begins."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hqsam.training.batch import View, collate
from hqsam.training.feed import encode
from hqsam.training.step import Step


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


def micro_batch(step: Step, view: View, share: int, *, frozen: bool) -> int:
    """Views per pass for `micro_batch: auto`.

    Args:
        step: of the run; its gradients are cleared afterwards.
        view: any view: all have one size.
        share: views of one process in a step.
        frozen: whether the encoder is SAM's own.

    Returns:
        0 (the share at once) on a CPU, where memory does not end with an error.
    """
    if step.group.device.type != "cuda":
        return 0

    def fits(size: int) -> bool:
        generator = torch.Generator().manual_seed(0)
        try:
            batch = collate([view] * size)
            features = encode(step.model, batch, bf16=step.options.precision == "bf16") if frozen else None
            step.gradients(generator, batch, features, at="the memory probe")
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            step.model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return True

    found = torch.tensor([float(largest_fitting(share, fits))])
    return int(min(float(t) for t in step.group.gather(found)))
