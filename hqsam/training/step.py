"""One optimiser step: each view under its own prompt, the loss, the gradients of the whole batch, Adam.

A process's share of the batch can go through the model in parts: the gradients of the parts are
weighted so that they add up to those of the share at once, and those of the processes are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqsam.model.hq_decoder import SamMasks
from hqsam.model.hq_sam import Encoded, HQMasks, HQSam
from hqsam.model.prompt_inputs import embed, group
from hqsam.training.batch import Batch
from hqsam.training.group import Group
from hqsam.training.loss import Draw, MaskLoss, boundary_region, draw, loss_at_points
from hqsam.training.options import TrainOptions
from hqsam.training.state import RunState
from hqsam_base.errors import UserError

MASK_LOGIT = 10.0
"""What a noisy mask's 255 becomes with `mask_prompt: logits`; its 0 becomes minus that."""


@dataclass(frozen=True)
class Step:
    """How steps are taken.

    Attributes:
        model: gradients flow to its trained parameters only.
        options: the `train` section.
        group: the processes.
        micro_batch: views per pass; 0: the whole share.
    """

    model: HQSam
    options: TrainOptions
    group: Group
    micro_batch: int

    def take(
        self, state: RunState, batch: Batch, encoded: Encoded | None, asks: Sequence[bool] = ()
    ) -> tuple[MaskLoss, list[bool]]:
        """Make one step: `gradients_of`, then `update`."""
        return self.update(state, self.gradients_of(state, batch, encoded), asks)

    def gradients_of(self, state: RunState, batch: Batch, encoded: Encoded | None) -> MaskLoss:
        """The first part of a step; of the state only the generator moves.

        Args:
            state: of the run.
            batch: this process's share.
            encoded: its image features; None: the encoder trains too, so they are computed here.

        Returns:
            The losses of the share.

        Raises:
            UserError: the loss is not finite.
        """
        state.adam.zero_grad(set_to_none=True)
        at = f"epoch {state.progress.epoch + 1}, step {state.progress.step + 1}"
        return self.gradients(state.generator, batch, encoded, at=at)

    def update(
        self, state: RunState, loss: MaskLoss, asks: Sequence[bool]
    ) -> tuple[MaskLoss, list[bool]]:
        """The rest of a step: the processes meet, the parameters move.

        Args:
            state: changed in place.
            loss: of this process's share.
            asks: questions of this process, e.g. whether it was told to end.

        Returns:
            The losses of the whole batch, and for each question whether any process says yes: the
            same answer in all.
        """
        loss, answers = self._share(state, loss, asks)
        state.adam.step()
        if self.options.ema:
            state.follow(self.options.ema)
        return loss, answers

    def gradients(
        self, generator: torch.Generator, batch: Batch, encoded: Encoded | None, *, at: str
    ) -> MaskLoss:
        """Add the gradients of this process's share to the parameters.

        Args:
            generator: of the loss points.
            batch: the share.
            encoded: its image features.
            at: where we are, for a message.

        Returns:
            The mean losses over the share, detached.
        """
        drawn = self._draw(len(batch), generator)
        bce, dice = (
            torch.zeros((), device=self.model.device),
            torch.zeros((), device=self.model.device),
        )
        for rows in parts(len(batch), self.micro_batch):
            part = batch[rows]
            features = self._encode(part) if encoded is None else encoded[rows]
            loss = self._loss(part, features, drawn[rows])
            _check_finite(loss, part, at)
            weight = len(part) / len(batch)
            (loss.total * weight).backward()  # type: ignore[no-untyped-call]
            bce, dice = bce + loss.bce.detach() * weight, dice + loss.dice.detach() * weight
        return MaskLoss(bce, dice)

    def _encode(self, batch: Batch) -> Encoded:
        """The features by the model's own encoder, with gradients."""
        images = self.model.preprocess(batch.image_B3SS)
        with torch.autocast(
            self.model.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"
        ):
            found = self.model.encode_hq(images)
        return Encoded(found.final_BCHW.float(), found.early_BVHW.float())

    def _draw(self, n_masks: int, generator: torch.Generator) -> Draw:
        o = self.options
        return draw(
            n_masks,
            n_points=o.points,
            generator=generator,
            device=self.model.device,
            oversample=o.oversample,
            importance=o.importance,
        )

    def _loss(self, batch: Batch, encoded: Encoded, drawn: Draw) -> MaskLoss:
        masks = predict(self.model, batch, encoded, mask_prompt=self.options.mask_prompt)
        labels = batch.label_B1SS.to(self.model.device)
        region = boundary_region(labels) if self.options.loss_region == "boundary" else None
        wanted = (
            [masks.hq_P1hw]
            if self.options.supervise == "hq_token"
            else [masks.hq_P1hw, masks.sum_P1hw]
        )
        losses = [
            loss_at_points(logits, labels, drawn.points(logits), region_B1HW=region)
            for logits in wanted
        ]
        if len(losses) == 1:
            return losses[0]
        return MaskLoss(
            torch.stack([x.bce for x in losses]).mean(),
            torch.stack([x.dice for x in losses]).mean(),
        )

    def _share(
        self, state: RunState, loss: MaskLoss, asks: Sequence[bool]
    ) -> tuple[MaskLoss, list[bool]]:
        """Average gradients and losses over the processes and pool their questions, in one exchange."""
        if self.group.size == 1:
            return loss, list(asks)
        parameters = list(state.parameters.values())
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        extra = torch.stack([loss.bce, loss.dice, *(loss.bce.new_tensor(float(a)) for a in asks)])
        flat = torch.cat([*(g.flatten() for g in grads), extra])
        self.group.sum_(flat)
        *summed, extra = torch.split(flat, [*(g.numel() for g in grads), len(extra)])
        for parameter, grad in zip(parameters, summed, strict=True):
            parameter.grad = (grad / self.group.size).view_as(parameter)
        bce, dice, *pooled = extra
        return MaskLoss(bce / self.group.size, dice / self.group.size), [
            bool(x > 0) for x in pooled
        ]


def parts(n: int, size: int) -> Iterator[slice]:
    """`n` rows in slices of at most `size`; 0: one slice."""
    size = size or n
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _check_finite(loss: MaskLoss, batch: Batch, at: str) -> None:
    value = float(loss.total.detach())
    if not math.isfinite(value):
        raise UserError(
            f"the loss is {value} in {at}",
            key=", ".join(sorted(set(batch.keys))[:8]),
            cure="look at these samples, or lower train.lr and delete last.pt to begin anew; "
            "last.pt, if there is one, "
            "holds the run as it was last saved",
        )


def predict(
    model: HQSam, batch: Batch, encoded: Encoded, *, mask_prompt: str = "picture"
) -> HQMasks:
    """The model's masks for each view under its own prompt.

    The views are decoded in groups of one signature (parts of the prompt, number of points): others
    have other tokens.

    Args:
        model: gradients flow to its trained parameters only.
        batch: the views' prompts.
        encoded: their image features, one row per view.
        mask_prompt: `picture` or `logits`, see `TrainOptions`.

    Returns:
        Masks in the order of the batch.
    """
    groups = group(batch.given)
    found = [_decode(model, batch, encoded, rows, mask_prompt) for rows in groups]
    order = torch.tensor([row for rows in groups for row in rows]).argsort().to(model.device)
    sam = SamMasks(
        torch.cat([m.sam.logits_PKhw for m in found])[order],
        torch.cat([m.sam.iou_PK for m in found])[order],
    )
    return HQMasks(torch.cat([m.hq_P1hw for m in found])[order], sam, own_token=found[0].own_token)


def predict_hq(
    model: HQSam, batch: Batch, encoded: Encoded, *, mask_prompt: str = "picture"
) -> Tensor:
    """Logits ``[B,1,h,w]`` of the HQ token alone; see `predict`."""
    return predict(model, batch, encoded, mask_prompt=mask_prompt).hq_P1hw


def _decode(
    model: HQSam, batch: Batch, encoded: Encoded, rows: list[int], mask_prompt: str
) -> HQMasks:
    given = [batch.given[row] for row in rows]
    if mask_prompt == "logits":
        given = [
            one if one.mask is None else replace(one, mask=mask_logits(one.mask)) for one in given
        ]
    return model.decode_hq(encoded[torch.tensor(rows, device=model.device)], embed(model, given))


def mask_logits(mask: NDArray[Any]) -> NDArray[np.float32]:
    """Turn a 0/255 mask picture into logits of the kind that SAM's mask prompts are."""
    return (mask.astype(np.float32) / np.float32(127.5) - 1) * np.float32(MASK_LOGIT)
