"""The `train` section of params.yaml; an entry of `models` may override single keys of it under `train`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

WITHOUT_EFFECT = frozenset(
    {
        "processes",
        "hang_timeout_s",
        "save_every",
        "save_every_s",
        "workers",
        "cache_gib",
        "best",
        "merged",
        "device",
    }
)
"""Options that cannot change the trained weights on one kind of device: a resumed run may change them."""


class TrainOptions(BaseModel):
    """How the HQ head is trained. Defaults are the official recipe (paper section 3.3).

    Attributes:
        epochs: passes over the data; 0: nothing trains, the HQ parameters in the model's checkpoint
            are evaluated as they are (a published HQ-SAM file).
        batch_size: views per optimiser step, over all processes.
        micro_batch: views per forward and backward pass of one process, whose gradients add up to
            those of its whole share of the batch; 0: the share at once; `auto`: as many as fit,
            tried out on the GPU at the start.
        lr: Adam's learning rate until `lr_drop_epoch`.
        lr_drop_epoch: epochs at full rate; later ones run at `lr * lr_drop`.
        lr_drop: the factor.
        points: loss points per mask.
        oversample: candidates per loss point.
        importance: share of the loss points taken by uncertainty.
        loss_region: `all`: loss points lie anywhere; `boundary`: only in the region around the
            label's boundary (the paper's variant of section 4.2).
        supervise: `hq_token`: the loss is on the HQ token's mask alone, as in the official code,
            which tests with the sum of SAM's and the HQ mask all the same; `both`: the mean of the
            losses of the token's mask and the sum.
        mask_prompt: what a noisy mask is fed as. `picture`: its 0/255 values, as in the official
            code; `logits`: -10 and 10, in the range of what SAM's mask prompts were trained with.
        feed: `cached` encodes every planned view once and keeps the features, `online` encodes at
            every step.
        views: `all`: an epoch is every planned view of every sample; `cycle`: one view per sample,
            view
            `epoch % views` (the official recipe draws a new view every epoch).
        sources: training sources to take; empty: all that are in the shards.
        holdout: share of the samples kept from training to draw the validation curve.
        holdout_most: largest number of them.
        encode_batch: views per encoder call.
        cache_gib: cached features above this size go to a memory-mapped file beside the outputs.
        cache_dtype: number format of the cached features.
        precision: of the frozen encoder. `bf16`: autocast; its features return to float32, and the
            trained parameters, their gradients and the loss are float32 in either case.
        compile: compile the encoder's blocks with `torch.compile`: quicker steps after minutes of
            work, other last bits.
        ema: decay per step of the moving average of the parameters that is validated and kept; 0:
            none.
        best: also keep the epoch with the best held-out boundary IoU of the HQ token, as
            `best.safetensors`.
        merged: also write the whole model in the layout of the published checkpoints, as
            `sam_hq.pth`.
        save_every: steps between two saves of `last.pt`; 0: at the end of each epoch and by time
            only.
        save_every_s: seconds between two; 0: not by time.
        processes: how many processes train; 0: one per GPU. More than one run under torchrun.
        hang_timeout_s: a training in child processes that shows no progress for so long prints its
            stacks and is ended; 0: never.
        workers: decoding threads of one process; 0: the machine's cores, shared by its processes.
        threads: compute threads; fixed, because the last bits of a sum depend on it. 0: leave
            torch's setting.
        device: `auto` takes a GPU if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=12, ge=0)
    batch_size: int = Field(default=32, ge=1)
    micro_batch: int | Literal["auto"] = 0
    lr: float = Field(default=1e-3, gt=0)
    lr_drop_epoch: int = Field(default=10, ge=0)
    lr_drop: float = Field(default=0.1, gt=0, le=1)
    points: int = Field(default=12544, ge=4)
    oversample: float = Field(default=3.0, ge=1)
    importance: float = Field(default=0.75, ge=0, le=1)
    loss_region: Literal["all", "boundary"] = "all"
    supervise: Literal["hq_token", "both"] = "hq_token"
    mask_prompt: Literal["picture", "logits"] = "picture"
    feed: Literal["cached", "online"] = "online"
    views: Literal["all", "cycle"] = "all"
    sources: tuple[str, ...] = ()
    holdout: float = Field(default=0.05, ge=0, lt=1)
    holdout_most: int = Field(default=48, ge=0)
    encode_batch: int = Field(default=16, ge=1)
    cache_gib: float = Field(default=2.0, ge=0)
    cache_dtype: Literal["float16", "bfloat16"] = "float16"
    precision: Literal["float32", "bf16"] = "float32"
    compile: bool = False
    ema: float = Field(default=0.0, ge=0, lt=1)
    best: bool = False
    merged: bool = False
    save_every: int = Field(default=0, ge=0)
    save_every_s: float = Field(default=300.0, ge=0)
    processes: int = Field(default=1, ge=0)
    hang_timeout_s: float = Field(default=1800.0, ge=0)
    workers: int = Field(default=2, ge=0)
    threads: int = Field(default=2, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if int(self.oversample * self.points) < int(self.importance * self.points):
            raise ValueError("oversample must give at least importance * points candidates")
        if isinstance(self.micro_batch, int) and self.micro_batch < 0:
            raise ValueError("micro_batch must be 0, a positive number or auto")
        return self

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch (counted from 0)."""
        return self.lr if epoch < self.lr_drop_epoch else self.lr * self.lr_drop

    def with_effect(self) -> dict[str, Any]:
        """The options that decide how a run goes, as JSON values."""
        return self.model_dump(mode="json", exclude=set(WITHOUT_EFFECT))
