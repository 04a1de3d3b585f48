"""`Ready`: a run whose inputs were read and checked, with its model, views, steps and identity."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.hq_sam import HQSam
from hqsam.training import checks
from hqsam.training.group import Group
from hqsam.training.loader import (
    Item,
    TrainingSet,
    epoch_items,
    epoch_plan,
    epoch_steps,
    held_out,
    n_views,
)
from hqsam.training.train_run import TrainRun
from hqsam_base.progress import Progress


@dataclass(frozen=True)
class Ready:
    """A training that can begin.

    Attributes:
        run: what was asked for.
        data: its training set.
        model: its model, on the group's device.
        group: the processes.
        progress: told how far the work is.
        say: gets the lines of the log.
        base_sha256: digest of SAM's weights; None: they are random.
        samples: numbers of the samples to train on.
        held: numbers of the samples that are held out.
        views: views per sample; 0 if nothing trains.
    """

    run: TrainRun
    data: TrainingSet
    model: HQSam
    group: Group
    progress: Progress
    say: Callable[[str], None]
    base_sha256: str | None
    samples: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    views: int = 0

    @functools.cached_property
    def identity(self) -> dict[str, object]:
        """Everything that decides how a run goes: a stopped one goes on only under the same."""
        return {
            "model": self.run.model.model_dump(mode="json", exclude={"checkpoint"}),
            "base": self.base_sha256,
            "data": self.data.digests,
            "seed": self.run.seed,
            "options": self.run.options.with_effect(),
            "processes": self.group.size,
            "device": self.group.device.type,
            "torch": str(torch.__version__),
        }

    @property
    def frozen(self) -> bool:
        """Whether the encoder is SAM's own, so that its features need no gradients."""
        return not self.model.head.changes_encoder

    def items(self, epoch: int) -> list[Item]:
        """The views of an epoch."""
        cycle = self.run.options.views == "cycle"
        return epoch_items(self.samples, views=self.views, cycle=cycle, epoch=epoch)

    def plan(self, epoch: int) -> list[list[Item]]:
        """This process's share of each step."""
        return epoch_plan(
            self.items(epoch),
            seed=self.run.seed,
            epoch=epoch,
            batch_size=self._share,
            rank=self.group.rank,
            world=self.group.size,
        )

    @property
    def steps(self) -> int:
        """Steps of an epoch: the same number in each."""
        n = len(self.samples) * (1 if self.run.options.views == "cycle" else self.views)
        return epoch_steps(n, batch_size=self._share, world=self.group.size)

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        epochs = self.run.options.epochs
        return epochs * self.steps if epochs else 0

    @property
    def _share(self) -> int:
        return self.run.options.batch_size // self.group.size

    def about(self, n_held_out: int) -> dict[str, object]:
        """What `meta.json` says beside the weights' digest and the last row of the curve."""
        return {
            "model": self.run.out.name,
            "backbone": self.run.model.backbone,
            "variant": self.run.model.variant,
            "base_sha256": self.base_sha256,
            "options": self.run.options.model_dump(mode="json"),
            "seed": self.run.seed,
            "n_samples": len(self.samples),
            "n_views": self.views,
            "n_parameters": sum(p.numel() for p in self.model.trainable().values()),
            "steps": self.total,
            "data": self.data.digests,
            "n_held_out": n_held_out,
        }


def prepare(
    run: TrainRun,
    data: TrainingSet,
    group: Group,
    *,
    progress: Progress,
    say: Callable[[str], None],
) -> Ready:
    """Build the model, choose the samples, and refuse what does not fit together.

    Raises:
        UserError: see `loop.train`.
    """
    model = build_model(run.model, seed=run.seed).to(group.device).train()
    digest = None
    if run.model.checkpoint is not None:
        digest = checkpoint.sha256(run.model.checkpoint)  # of gigabytes perhaps: once, here
        checkpoint.check_published(run.model.checkpoint, digest)
    ready = Ready(run, data, model, group, progress, say, digest)
    if not run.options.epochs:
        checks.check_given(model, run.model, run.options)
        return ready
    checks.check_samples(data)
    checks.check_variant(model, run.options)
    checks.check_size(data, model)
    checks.check_nodes(run.options, group.size)
    keys = {number: data.places[number].key for number in data.of_sources(run.options.sources)}
    kept_out = held_out(
        list(keys.values()), share=run.options.holdout, most=run.options.holdout_most
    )
    ready = replace(
        ready,
        samples=tuple(number for number, key in keys.items() if key not in kept_out),
        held=tuple(number for number, key in keys.items() if key in kept_out),
        views=n_views(data),
    )
    checks.check_held_out(len(ready.samples), len(kept_out), run.options)
    checks.check_processes(len(ready.items(0)), run.options, group.size)
    checks.compile_encoder(model, run.options)
    return ready
