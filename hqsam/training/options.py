"""The `train` section of params.yaml."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainOptions(BaseModel):
    """How the HQ head is trained. Defaults are the official recipe (paper section 3.3).

    Attributes:
        epochs: passes over the data.
        batch_size: views per step and process.
        lr: Adam's learning rate until `lr_drop_epoch`.
        lr_drop_epoch: epochs at full rate; later ones run at `lr * lr_drop`.
        lr_drop: the factor.
        points: loss points per mask.
        oversample: candidates per loss point.
        importance: share of the loss points taken by uncertainty.
        feed: `cached` encodes every planned view once and keeps the features, `online` encodes at every step.
        views: `all`: an epoch is every planned view of every sample; `cycle`: one view per sample, view
            `epoch % views` (the official recipe draws a new view every epoch).
        holdout: share of the samples kept from training to draw the validation curve.
        holdout_most: largest number of them.
        encode_batch: views per encoder call.
        cache_gib: cached features above this size go to a memory-mapped file beside the outputs.
        workers: decoding threads.
        threads: compute threads; fixed, because the last bits of a sum depend on it. 0: leave torch's setting.
        device: `auto` takes a GPU if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=12, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    lr_drop_epoch: int = Field(default=10, ge=0)
    lr_drop: float = Field(default=0.1, gt=0, le=1)
    points: int = Field(default=12544, ge=4)
    oversample: float = Field(default=3.0, ge=1)
    importance: float = Field(default=0.75, ge=0, le=1)
    feed: Literal["cached", "online"] = "online"
    views: Literal["all", "cycle"] = "all"
    holdout: float = Field(default=0.05, ge=0, lt=1)
    holdout_most: int = Field(default=48, ge=0)
    encode_batch: int = Field(default=16, ge=1)
    cache_gib: float = Field(default=2.0, ge=0)
    workers: int = Field(default=2, ge=1)
    threads: int = Field(default=2, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _check_points(self) -> Self:
        if int(self.oversample * self.points) < int(self.importance * self.points):
            raise ValueError("oversample must give at least importance * points candidates")
        return self

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch (counted from 0)."""
        return self.lr if epoch < self.lr_drop_epoch else self.lr * self.lr_drop
