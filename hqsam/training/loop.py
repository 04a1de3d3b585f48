"""Train the HQ head: `train` is the entry point of the train stage (docs/formats.md).

SAM is frozen; only the HQ modules train, with the loss of `loss.py` on the HQ token's mask (paper section 3.3). Each
view has one prompt, chosen by the plan: the box, ten foreground points, or a noisy mask fed as a 0/255 picture, as
the official training does.

On the CPU the same inputs give the same bits: the order is planned, the thread count is fixed by an option, and
deterministic algorithms are asked for. Several processes share each step's views; the result is a function of the
plan and their number.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hqsam_datasets.atomic import write_text
from hqsam_datasets.errors import UserError

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import ModelOptions
from hqsam.training import guard, results
from hqsam.training.cache import cached_feed
from hqsam.training.feed import Feed, OnlineFeed
from hqsam.training.group import Group, device_of, joined
from hqsam.training.loader import Item, TrainingSet, epoch_items, epoch_plan, held_out, n_views
from hqsam.training.loss import MaskLoss
from hqsam.training.options import TrainOptions
from hqsam.training.probe import micro_batch
from hqsam.training.state import Progress, RunState, remove
from hqsam.training.step import Step
from hqsam.training.validate import Validation

__all__ = ["ModelOptions", "TrainOptions", "train"]

Report = Callable[[int, int, str], None]
STOP, SAVE = 0, 1
"""What a process asks at each step; the answer is the same for all."""


def _quiet(_done: int, _total: int, _what: str) -> None:
    """Default progress: none."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class _Run:
    """A training that is ready to go."""

    model: HQSam
    options: TrainOptions
    group: Group
    seed: int
    samples: Sequence[int]
    views: int
    validation: Validation
    out: Path
    identity: dict[str, object]
    report: Report

    def items(self, epoch: int) -> list[Item]:
        return epoch_items(self.samples, views=self.views, cycle=self.options.views == "cycle", epoch=epoch)

    def plan(self, epoch: int) -> list[list[Item]]:
        """This process's share of each step."""
        return epoch_plan(
            self.items(epoch), seed=self.seed, epoch=epoch, batch_size=self.options.batch_size // self.group.size,
            rank=self.group.rank, world=self.group.size,
        )  # fmt: skip

    @property
    def frozen(self) -> bool:
        """Whether the encoder is SAM's own, so that its features need no gradients."""
        return not self.model.head.changes_encoder

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return sum(len(self.plan(e)) for e in range(self.options.epochs))


def train(
    *,
    shards: Path,
    prompts: Path,
    model: ModelOptions,
    options: TrainOptions,
    out: Path,
    seed: int,
    report: Report = _quiet,
    say: Callable[[str], None] = _say,
) -> dict[str, object]:
    """Train the HQ head and write `hq_head.safetensors`, `curves.csv` and, last, `meta.json`.

    A run that was stopped goes on from `last.pt` in `out` and ends with the same bits as one that was never stopped.
    SIGTERM saves `last.pt` and ends the process with 143. Under torchrun all processes call this; the first one
    writes, so `out` and the scratch folder beside it must be one folder for all of them.

    Args:
        shards: folder of the shard stage.
        prompts: folder of the augment stage.
        model: the frozen base.
        options: the `train` section.
        out: folder to write.
        seed: initial weights, order of the views, loss points.
        report: progress, called as (done, total, what) by the first process.
        say: gets single lines, such as the estimate of what caching features costs.

    Returns:
        The content of `meta.json`; of no meaning in the other processes.

    Raises:
        UserError: empty or unpaired shards, missing or unfitting checkpoint, a plan for another model size, more
            processes than views, a stopped training of another kind in `out`, or a loss that is not finite.
    """
    device = device_of(options.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(guard.deterministic(options.threads))
        group = stack.enter_context(joined(device, timeout_s=options.hang_timeout_s))
        if not group.leads:
            report, say = _quiet, lambda _line: None
        out.mkdir(parents=True, exist_ok=True)
        if group.leads:
            remove(out / results.META)
        data = TrainingSet(shards=shards, prompts=prompts)
        stack.callback(data.close)
        run = _prepare(data, model, options, group, out, seed, report)
        state = _start(run)
        step = _step_of(run, state, data)
        scratch = stack.enter_context(guard.scratch(out, group))
        _epochs(run, state, step, _feed(run, data, step, scratch, say))
        return results.finish(run.model, state, _about(run, data, model), out, group, options)


def _prepare(
    data: TrainingSet, model: ModelOptions, options: TrainOptions, group: Group, out: Path, seed: int, report: Report
) -> _Run:
    net = build_model(model, seed=seed).to(group.device).train()
    _check_size(data, net)
    _check_variant(net, options)
    chosen = data.of_sources(options.sources)
    keys = [data.places[n].key for n in chosen]
    kept_out = held_out(keys, share=options.holdout, most=options.holdout_most)
    samples = [n for n, key in zip(chosen, keys, strict=True) if key not in kept_out]
    views = n_views(data)
    _check_processes(len(samples) * (1 if options.views == "cycle" else views), options, group)
    _compile(net, options)
    held = [n for n, key in zip(chosen, keys, strict=True) if key in kept_out]
    validation = Validation(data, held if group.leads else [], net, batch=options.encode_batch)
    return _Run(
        net, options, group, seed, samples, views, validation, out, _identity(data, model, options, group, seed), report
    )


def _identity(
    data: TrainingSet, model: ModelOptions, options: TrainOptions, group: Group, seed: int
) -> dict[str, object]:
    """Everything that decides how a run goes: a stopped one goes on only under the same."""
    return {
        "model": model.model_dump(mode="json", exclude={"checkpoint"}),
        "base": _base_digest(model),
        "data": data.digests,
        "seed": seed,
        "options": options.with_effect(),
        "processes": group.size,
        "device": group.device.type,
        "torch": str(torch.__version__),
    }


def _base_digest(model: ModelOptions) -> str | None:
    return None if model.checkpoint is None else checkpoint.sha256(model.checkpoint)


def _check_size(data: TrainingSet, net: HQSam) -> None:
    """The plan's views and noise masks must have the sizes that this backbone takes."""
    view = data.view(Item(0, 0))
    found, wanted = (view.image.shape[0], view.noise.shape[0]), (net.backbone.image_size, net.backbone.mask_size)
    if found != wanted:
        raise UserError(
            f"the plan is for views of {found[0]} and mask prompts of {found[1]} pixels, backbone {net.backbone.name} "
            f"takes {wanted[0]} and {wanted[1]}",
            file=data.prompts / "index.json", key=view.key,
            cure="set augment.image_size and augment.mask_input_size to the backbone's and run the augment stage again",
        )  # fmt: skip


def _check_processes(n_items: int, options: TrainOptions, group: Group) -> None:
    """Each process needs a view per step, and all the same number of them."""
    if n_items < group.size:
        raise UserError(
            f"{n_items} training views for {group.size} processes", key="train.processes", cure="start fewer processes"
        )
    if options.batch_size % group.size:
        raise UserError(
            f"a batch of {options.batch_size} views cannot be shared evenly by {group.size} processes",
            key="train.batch_size", cure="make it a multiple of the number of processes",
        )  # fmt: skip


def _check_variant(net: HQSam, options: TrainOptions) -> None:
    """What the options ask for must be possible with this variant."""
    if net.head.changes_encoder and options.feed == "cached":
        raise UserError(
            f"the variant {net.variant} changes the encoder, so its features cannot be cached", key="train.feed",
            cure="set feed: online (models.<name>.train of params.yaml is for one model)",
        )  # fmt: skip
    if options.merged and net.variant != "hq":
        raise UserError(
            f"the published formats have no place for the variant {net.variant}", key="train.merged",
            cure="set it to false",
        )  # fmt: skip


def _compile(net: HQSam, options: TrainOptions, *, backend: str = "inductor") -> None:
    """Compile block by block: the blocks are alike, so this takes the time of one or two of them."""
    blocks = getattr(net.sam.image_encoder, "blocks", None)
    if options.compile:
        for module in [net.sam.image_encoder] if blocks is None else blocks:
            module.compile(backend=backend)


def _start(run: _Run) -> RunState:
    parameters = run.model.trainable()
    adam = torch.optim.Adam(parameters.values(), lr=run.options.lr)
    # The first process draws what a single one would; each other one has a stream of its own.
    generator = torch.Generator().manual_seed(run.seed + 1_000_003 * run.group.rank)
    state = RunState(parameters, adam, generator, Progress(micro_batch=-1))
    if state.restore(run.out, run.identity, run.group):
        run.report(state.progress.epoch, run.options.epochs, "resumed")
    return state


def _step_of(run: _Run, state: RunState, data: TrainingSet) -> Step:
    """The step with its number of views per pass, which a resumed run takes from the stopped one."""
    step = Step(run.model, run.options, run.group, 0)
    if state.progress.micro_batch < 0:
        wanted = run.options.micro_batch
        share = len(run.plan(0)[0])
        found = micro_batch(step, data.view(Item(0, 0)), share, frozen=run.frozen) if wanted == "auto" else wanted
        state.progress.micro_batch = int(found)
    return Step(run.model, run.options, run.group, state.progress.micro_batch)


def _feed(run: _Run, data: TrainingSet, step: Step, scratch: Path, say: Callable[[str], None]) -> Feed:
    options = run.options
    if options.feed == "online":
        bf16 = options.precision == "bf16"
        return OnlineFeed(data, run.model, options.workers, step.micro_batch, bf16=bf16, frozen=run.frozen)
    items = epoch_items(run.samples, views=run.views, cycle=False, epoch=0)
    online = options.epochs * len(run.items(0))
    return cached_feed(
        data, run.model, items, options, run.group, scratch=scratch, identity=_features_of(run), online=online,
        report=run.report, say=say,
    )  # fmt: skip


def _features_of(run: _Run) -> dict[str, object]:
    """What decides the cached features; the rest of the options may change between two runs that share them."""
    names = ("precision", "cache_dtype", "compile", "encode_batch", "sources", "holdout", "holdout_most", "threads")
    options = run.options.model_dump(mode="json", include=set(names))
    return {key: run.identity[key] for key in ("model", "base", "data", "device", "torch")} | {"options": options}


def _epochs(run: _Run, state: RunState, step: Step, feed: Feed) -> None:
    """All epochs from the cursor on; `last.pt` after each, now and then between, and when SIGTERM asks for the end."""
    progress, options, total = state.progress, run.options, run.total
    done = sum(len(run.plan(e)) for e in range(progress.epoch)) + progress.step
    saved = time.monotonic()
    with guard.noting_sigterm() as stopping:
        for epoch in range(progress.epoch, options.epochs):
            for group in state.adam.param_groups:
                group["lr"] = options.lr_at(epoch)
            plan = run.plan(epoch)
            for batch, encoded in feed.steps(plan[progress.step :]):
                due = bool(options.save_every_s) and time.monotonic() - saved > options.save_every_s
                due |= bool(options.save_every) and (done + 1) % options.save_every == 0
                loss, answers = step.take(state, batch, encoded, (stopping(), due))
                _count(progress, loss)
                done += 1
                run.report(done, total, "steps")
                if any(answers):
                    state.save(run.out, run.identity, run.group)
                    saved = time.monotonic()
                if answers[STOP]:
                    raise SystemExit(128 + signal.SIGTERM)
            _close_epoch(run, state, epoch, len(plan))
            state.save(run.out, run.identity, run.group)
            saved = time.monotonic()


def _count(progress: Progress, loss: MaskLoss) -> None:
    progress.step += 1
    progress.sums = [progress.sums[0] + float(loss.bce), progress.sums[1] + float(loss.dice)]


def _close_epoch(run: _Run, state: RunState, epoch: int, steps: int) -> None:
    """Validate, append the curve's row, move the cursor."""
    progress = state.progress
    bce, dice = (s / steps for s in progress.sums)
    row: dict[str, float] = {"epoch": epoch + 1, "lr": run.options.lr_at(epoch)}
    row |= {"loss": bce + dice, "loss_bce": bce, "loss_dice": dice}
    with state.averaged():
        scores = run.validation.scores(run.model)
        score = scores.get("hq_token_mBIoU", float("-inf"))
        if run.options.best and run.group.leads and score > progress.best:
            results.save_best(run.model, run.out, epoch + 1)
    progress.best = max(progress.best, score)
    progress.curve.append(row | {k: scores[k] for k in sorted(scores)})
    progress.epoch, progress.step, progress.sums = epoch + 1, 0, [0.0, 0.0]
    if run.group.leads:
        write_text(run.out / results.CURVES, results.csv_text(progress.curve))


def _about(run: _Run, data: TrainingSet, model: ModelOptions) -> dict[str, object]:
    """What `meta.json` says beside the weights' digest and the last row of the curve."""
    return {
        "model": run.out.name,
        "backbone": model.backbone,
        "variant": model.variant,
        "base_sha256": _base_digest(model),
        "options": run.options.model_dump(mode="json"),
        "seed": run.seed,
        "n_samples": len(run.samples),
        "n_views": run.views,
        "n_held_out": len(run.validation.cases),
        "n_parameters": sum(p.numel() for p in run.model.trainable().values()),
        "steps": run.total,
        "data": data.digests,
    }
