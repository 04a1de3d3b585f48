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

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import ModelOptions
from hqsam.training import checks, guard, results
from hqsam.training.cache import cached_feed
from hqsam.training.events import NAME as EVENTS
from hqsam.training.events import EventFile
from hqsam.training.feed import Feed, OnlineFeed, decoding_threads
from hqsam.training.group import Group, device_of, joined
from hqsam.training.loader import Item, TrainingSet, epoch_items, epoch_plan, epoch_steps, held_out, n_views
from hqsam.training.options import TrainOptions
from hqsam.training.probe import micro_batch
from hqsam.training.state import LAST, RunState, TrainProgress, remove
from hqsam.training.step import Step
from hqsam.training.validate import Validation
from hqsam_base.atomic import write_text
from hqsam_base.progress import Progress, silent

__all__ = ["ModelOptions", "TrainOptions", "train"]

STOP = 0
"""The first of the questions that a process asks at each step: whether to end. The answer is the same for all."""


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
    held: Sequence[int]
    out: Path
    identity: dict[str, object]
    progress: Progress
    say: Callable[[str], None]

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
    def steps(self) -> int:
        """Steps of an epoch: the same number in each."""
        n = len(self.samples) * (1 if self.options.views == "cycle" else self.views)
        return epoch_steps(n, batch_size=self.options.batch_size // self.group.size, world=self.group.size)

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.options.epochs * self.steps if self.options.epochs else 0


def train(
    *,
    shards: Path,
    prompts: Path,
    model: ModelOptions,
    options: TrainOptions,
    out: Path,
    seed: int,
    progress: Progress = silent,
    say: Callable[[str], None] = _say,
) -> dict[str, object]:
    """Train the HQ head and write `hq_head.safetensors`, `curves.csv` and, last, `meta.json`.

    With `epochs: 0` nothing trains and no GPU is needed: the HQ parameters of the checkpoint are written as they are.

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
        progress: told how far the work is, called as (done, total, what) by the first process.
        say: gets the lines of the log: what caching features costs, where a run goes on, each epoch's losses and scores.

    Returns:
        The content of `meta.json`; of no meaning in the other processes.

    Raises:
        UserError: empty or unpaired shards, missing or unfitting checkpoint, a plan for another model size, more
            processes than views, a stopped training of another kind in `out`, a loss that is not finite, or no epochs
            for a checkpoint without HQ parameters.
    """
    device = device_of(options.device if options.epochs else "cpu")
    with contextlib.ExitStack() as stack:
        stack.enter_context(guard.deterministic(options.threads))
        group = stack.enter_context(joined(device, timeout_s=options.hang_timeout_s))
        if not group.leads:
            progress, say = silent, lambda _line: None
        out.mkdir(parents=True, exist_ok=True)
        data = TrainingSet(shards=shards, prompts=prompts)
        stack.callback(data.close)
        run = _prepare(data, model, options, group, out, seed, progress, say)
        state = _start(run)
        if group.leads:  # only now: what was refused has not cost a finished model
            remove(out / results.META)
            if not options.epochs:
                remove(out / EVENTS)
        n_held_out = 0
        if options.epochs:
            scratch = stack.enter_context(guard.scratch(out, group))
            n_held_out = _learn(run, state, data, scratch)
        about = _about(run, data, model) | {"n_held_out": n_held_out}
        return results.finish(run.model, state, about, out, group, options)


def _learn(run: _Run, state: RunState, data: TrainingSet, scratch: Path) -> int:
    """All steps that are left, each epoch validated; the number of samples that it is validated on."""
    step = _step_of(run, state, data)
    batch = _encode_batch(run, step)
    validation = Validation(data, run.held if run.group.leads else [], run.model, batch=batch)
    _epochs(run, state, step, _feed(run, data, step, scratch), validation)
    return len(validation.cases)


def _prepare(
    data: TrainingSet, model: ModelOptions, options: TrainOptions, group: Group, out: Path, seed: int, progress: Progress,
    say: Callable[[str], None],
) -> _Run:  # fmt: skip
    net = build_model(model, seed=seed).to(group.device).train()
    identity = _identity(data, model, options, group, seed)
    if not options.epochs:
        checks.check_given(net, model, options)
        return _Run(net, options, group, seed, [], 0, [], out, identity, progress, say)
    checks.check_variant(net, options)
    checks.check_size(data, net)
    checks.check_nodes(options, group.size)
    chosen = data.of_sources(options.sources)
    keys = [data.places[n].key for n in chosen]
    kept_out = held_out(keys, share=options.holdout, most=options.holdout_most)
    samples = [n for n, key in zip(chosen, keys, strict=True) if key not in kept_out]
    views = n_views(data)
    checks.check_held_out(len(samples), len(kept_out), options)
    checks.check_processes(len(samples) * (1 if options.views == "cycle" else views), options, group.size)
    checks.compile_encoder(net, options)
    held = [n for n, key in zip(chosen, keys, strict=True) if key in kept_out]
    return _Run(net, options, group, seed, samples, views, held, out, identity, progress, say)


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
    if model.checkpoint is None:
        return None
    digest = checkpoint.sha256(model.checkpoint)
    checkpoint.check_published(model.checkpoint, digest)
    return digest


def _start(run: _Run) -> RunState:
    parameters = run.model.trainable()
    adam = torch.optim.Adam(parameters.values(), lr=run.options.lr)
    # The first process draws what a single one would; each other one has a stream of its own.
    generator = torch.Generator().manual_seed(run.seed + 1_000_003 * run.group.rank)
    state = RunState(parameters, adam, generator, TrainProgress(micro_batch=-1))
    if state.restore(run.out, run.identity, run.group, run.say):
        run.say(
            f"going on from {LAST}: epoch {state.progress.epoch + 1}, {state.progress.step} of {run.steps} steps done"
        )
        run.progress(state.progress.epoch, run.options.epochs, "resumed")
    elif run.group.leads:  # of an earlier run: this one need not write them again
        for name in (results.BEST, results.MERGED):
            remove(run.out / name)
    return state


def _step_of(run: _Run, state: RunState, data: TrainingSet) -> Step:
    """The step with its number of views per pass, which a resumed run takes from the stopped one."""
    step = Step(run.model, run.options, run.group, 0)
    if state.progress.micro_batch < 0:
        wanted = run.options.micro_batch
        share = len(run.plan(0)[0])
        if wanted == "auto":
            wanted = micro_batch(step, data.view(Item(0, 0)), share, frozen=run.frozen, n_held_out=len(run.held))
            run.say(f"micro_batch: auto: {wanted or share} of the {share} views of a process at once")
        state.progress.micro_batch = wanted
    return Step(run.model, run.options, run.group, state.progress.micro_batch)


def _encode_batch(run: _Run, step: Step) -> int:
    """Views per encoder call outside the steps: no more than a step's pass, for which there is memory."""
    return min(run.options.encode_batch, step.micro_batch or run.options.encode_batch)


def _feed(run: _Run, data: TrainingSet, step: Step, scratch: Path) -> Feed:
    options = run.options
    if options.feed == "online":
        bf16, workers = options.precision == "bf16", decoding_threads(options.workers)
        return OnlineFeed(data, run.model, workers, step.micro_batch, bf16=bf16, frozen=run.frozen)
    items = epoch_items(run.samples, views=run.views, cycle=False, epoch=0)
    online = options.epochs * len(run.items(0))
    workers = decoding_threads(options.workers)
    options = options.model_copy(update={"encode_batch": _encode_batch(run, step), "workers": workers})
    return cached_feed(
        data, run.model, items, options, run.group, scratch=scratch, identity=_features_of(run, options), online=online,
        progress=run.progress, say=run.say,
    )  # fmt: skip


def _features_of(run: _Run, wanted: TrainOptions) -> dict[str, object]:
    """What decides the cached features; the rest of the options may change between two runs that share them."""
    names = ("precision", "cache_dtype", "compile", "encode_batch", "sources", "holdout", "holdout_most", "threads")
    options = wanted.model_dump(mode="json", include=set(names))
    return {key: run.identity[key] for key in ("model", "base", "data", "device", "torch")} | {"options": options}


def _epochs(run: _Run, state: RunState, step: Step, feed: Feed, validation: Validation) -> None:
    """All epochs from the cursor on; `last.pt` after each, now and then between, and when SIGTERM asks for the end."""
    folder = run.out if run.group.leads else None
    with (
        guard.noting_sigterm() as stop,
        EventFile(folder, results.past(state.progress, run.steps, run.options)) as events,
    ):
        for epoch in range(state.progress.epoch, run.options.epochs):
            for group in state.adam.param_groups:
                group["lr"] = run.options.lr_at(epoch)
            _steps(run, state, step, feed, stop, events)
            _close_epoch(run, state, validation, stop, events)
            state.save(run.out, run.identity, run.group)


def _steps(run: _Run, state: RunState, step: Step, feed: Feed, stop: guard.Stop, events: EventFile) -> None:
    """The rest of an epoch's steps. A process on its own gives up the step under way when SIGTERM comes."""
    progress, options, alone = state.progress, run.options, run.group.size == 1
    batches = iter(feed.steps(run.plan(progress.epoch)[progress.step :]))
    saved = time.monotonic()
    while progress.step < run.steps:
        generator = state.generator.get_state()
        try:
            with stop.at_once(alone):
                batch, encoded = next(batches)
                loss = step.gradients_of(state, batch, encoded)
        except guard.Stopped:
            state.write(run.out, run.identity, [generator])
            raise SystemExit(128 + signal.SIGTERM) from None
        due = bool(options.save_every_s) and time.monotonic() - saved > options.save_every_s
        due |= bool(options.save_every) and (_done(run, state) + 1) % options.save_every == 0
        loss, answers = step.update(state, loss, (stop.asked, due))
        progress.add(float(loss.bce), float(loss.dice))
        done = _done(run, state)
        events.add(done, results.step_values(*progress.losses[-1], lr=options.lr_at(progress.epoch)))
        run.progress(done, run.total, "steps")
        if any(answers):
            state.save(run.out, run.identity, run.group)
            saved = time.monotonic()
        if answers[STOP]:
            raise SystemExit(128 + signal.SIGTERM)


def _done(run: _Run, state: RunState) -> int:
    """Steps of the run so far."""
    return state.progress.epoch * run.steps + state.progress.step


def _close_epoch(run: _Run, state: RunState, validation: Validation, stop: guard.Stop, events: EventFile) -> None:
    """Validate, append the curve's row, move the cursor."""
    progress, epoch, steps = state.progress, state.progress.epoch, run.steps
    bce, dice = (s / steps for s in progress.sums)
    row: dict[str, float] = {"epoch": epoch + 1, "lr": run.options.lr_at(epoch)}
    row |= {"loss": bce + dice, "loss_bce": bce, "loss_dice": dice}
    generators = run.group.gather(state.generator.get_state())
    try:
        with stop.at_once(run.group.leads), state.averaged():
            scores = validation.scores(run.model)
            score = scores.get("hq_token_mBIoU", float("-inf"))
            if run.options.best and run.group.leads and score > progress.best:
                results.save_best(run.model, run.out, epoch + 1)
    except guard.Stopped:  # the steps of the epoch are done: the next run begins with its validation
        state.write(run.out, run.identity, generators)
        raise SystemExit(128 + signal.SIGTERM) from None
    progress.best = max(progress.best, score)
    progress.curve.append(row | {k: scores[k] for k in sorted(scores)})
    progress.epoch, progress.step, progress.sums = epoch + 1, 0, [0.0, 0.0]
    run.say(results.epoch_line(progress.curve[-1], run.options.epochs))
    events.add(_done(run, state), results.epoch_values(progress.curve[-1]))
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
        "n_parameters": sum(p.numel() for p in run.model.trainable().values()),
        "steps": run.total,
        "data": data.digests,
    }
