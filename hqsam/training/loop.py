"""Train the HQ head: `train` is the entry point of the train stage (docs/formats.md).

SAM is frozen; only the HQ modules train, with the loss of `loss.py` on the HQ token's mask (paper
section 3.3). Each view has one prompt, chosen by the plan: the box, ten foreground points, or a
noisy mask fed as a 0/255 picture, as the official training does.

On the CPU the same inputs give the same bits: the order is planned, the thread count is fixed by an
option, and deterministic algorithms are asked for. Several processes share each step's views; the
result is a function of the plan and their number.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hqsam.model.outputs import Output
from hqsam.training import guard, results
from hqsam.training.cache import cached_feed
from hqsam.training.events import NAME as EVENTS
from hqsam.training.events import EventFile
from hqsam.training.feed import Feed, OnlineFeed, decoding_threads
from hqsam.training.group import device_of, joined
from hqsam.training.loader import Item, TrainingSet
from hqsam.training.options import TrainOptions
from hqsam.training.probe import micro_batch
from hqsam.training.ready import Ready, prepare
from hqsam.training.state import LAST, RunState, TrainProgress, remove
from hqsam.training.step import Step
from hqsam.training.train_run import TrainRun
from hqsam.training.validate import Validation
from hqsam_base.atomic import write_text
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress, silent

STOP = 0
"""The first of the questions that a process asks at each step: whether to end. The answer is the same for all."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def train(
    run: TrainRun, *, progress: Progress = silent, say: Callable[[str], None] = _say
) -> dict[str, object]:
    """Train the HQ head and write `hq_head.safetensors`, `curves.csv` and, last, `meta.json`.

    With `epochs: 0` nothing trains and no GPU is needed: the HQ parameters of the checkpoint are
    written as they are.

    A run that was stopped resumes from `last.pt` in `out` and ends with the same bits as one that
    was never stopped. SIGTERM saves `last.pt` and ends the process with 143. Under torchrun all
    processes call this; the first one writes, so `out` and the scratch folder beside it must be one
    folder for all of them.

    Args:
        run: what to train, on what, how, and where to write it.
        progress: told how far the work is, called as (done, total, what) by the first process.
        say: gets the lines of the log: what caching features costs, where a run goes on, each
            epoch's losses and scores.

    Returns:
        The content of `meta.json`; of no meaning in the other processes.

    Raises:
        UserError: empty or unpaired shards, missing or unfitting checkpoint, a plan for another
            model size, more processes than views, a stopped training of another kind in `out`, a
            loss that is not finite, a memory that is too small, or no epochs for a checkpoint without HQ parameters.
    """
    options, out = run.options, run.out
    device = device_of(options.device if options.epochs else "cpu")
    with contextlib.ExitStack() as stack:
        stack.enter_context(guard.deterministic(options.threads))
        group = stack.enter_context(joined(device, timeout_s=options.hang_timeout_s))
        if not group.leads:
            progress, say = silent, lambda _line: None
        out.mkdir(parents=True, exist_ok=True)
        data = TrainingSet(shards=run.shards, prompts=run.prompts)
        stack.callback(data.close)
        ready = prepare(run, data, group, progress=progress, say=say)
        state = _start(ready)
        if group.leads:  # only now: what was refused has not cost a finished model
            remove(out / results.META)
            if not options.epochs:
                remove(out / EVENTS)
        n_held_out = 0
        if options.epochs:
            scratch = stack.enter_context(guard.scratch(out, group))
            try:
                n_held_out = _learn(ready, state, scratch)
            except torch.OutOfMemoryError as error:
                # Not halved in the middle: what shares a pass moves the last bits of every step
                # after it, and a run that goes on must be the run that was not interrupted.
                raise UserError(
                    f"the training ran out of memory ({str(error).partition(chr(10))[0]})",
                    key="train.micro_batch",
                    cure="set it to `auto`, or to a smaller number: gradients add up to the same "
                    "batch_size; train.encode_batch bounds the encoder's calls",
                ) from error
        return results.finish(ready.model, state, ready.about(n_held_out), run, group)


def _learn(ready: Ready, state: RunState, scratch: Path) -> int:
    """All steps that are left, each epoch validated; the number of samples that it is validated on."""
    step = _step_of(ready, state)
    # Views per encoder call outside the steps: no more than a step's pass, for which there is
    # memory.
    batch = min(ready.run.options.encode_batch, step.micro_batch or ready.run.options.encode_batch)
    held = ready.held if ready.group.leads else ()
    validation = Validation(ready.data, held, ready.model, batch=batch)
    # All epochs from the cursor on; `last.pt` after each, now and then between, and when SIGTERM
    # asks for the end
    feed = _feed(ready, step, scratch, batch)
    folder = ready.run.out if ready.group.leads else None
    with (
        guard.noting_sigterm() as stop,
        EventFile(folder, results.past(state.progress, ready.steps, ready.run.options)) as events,
    ):
        for epoch in range(state.progress.epoch, ready.run.options.epochs):
            for group in state.adam.param_groups:
                group["lr"] = ready.run.options.lr_at(epoch)
            _steps(ready, state, step, feed, stop, events)
            _close_epoch(ready, state, validation, stop, events)
            state.save(ready.run.out, ready.identity, ready.group)
    return len(validation.cases)


def _start(ready: Ready) -> RunState:
    parameters = ready.model.trainable()
    adam = torch.optim.Adam(parameters.values(), lr=ready.run.options.lr)
    # The first process draws what a single one would; each other one has a stream of its own.
    generator = torch.Generator().manual_seed(ready.run.seed + 1_000_003 * ready.group.rank)
    state = RunState(parameters, adam, generator, TrainProgress(micro_batch=-1))
    if state.restore(ready.run.out, ready.identity, ready.group, ready.say):
        ready.say(
            f"going on from {LAST}: epoch {state.progress.epoch + 1}, {state.progress.step} of "
            f"{ready.steps} steps done"
        )
        ready.progress(state.progress.epoch, ready.run.options.epochs, "resumed")
    elif ready.group.leads:  # of an earlier run: this one need not write them again
        for name in (results.BEST, results.MERGED):
            remove(ready.run.out / name)
    return state


def _step_of(ready: Ready, state: RunState) -> Step:
    """The step with its number of views per pass, which a resumed run takes from the stopped one."""
    step = Step(ready.model, ready.run.options, ready.group, 0)
    if state.progress.micro_batch < 0:
        wanted = ready.run.options.micro_batch
        share = len(ready.plan(0)[0])
        if wanted == "auto":
            wanted = micro_batch(
                step,
                ready.data.view(Item(0, 0)),
                share,
                frozen=ready.frozen,
                n_held_out=len(ready.held),
            )
            ready.say(
                f"micro_batch: auto: {wanted or share} of the {share} views of a process at once"
            )
        state.progress.micro_batch = wanted
    return Step(ready.model, ready.run.options, ready.group, state.progress.micro_batch)


def _feed(ready: Ready, step: Step, scratch: Path, encode_batch: int) -> Feed:
    options = ready.run.options
    workers = decoding_threads(options.workers)
    if options.feed == "online":
        bf16 = options.precision == "bf16"
        return OnlineFeed(
            ready.data, ready.model, workers, step.micro_batch, bf16=bf16, frozen=ready.frozen
        )
    options = options.model_copy(update={"encode_batch": encode_batch, "workers": workers})
    return cached_feed(ready, options, scratch=scratch, identity=_features_of(ready, options))


def _features_of(ready: Ready, wanted: TrainOptions) -> dict[str, object]:
    """What decides the cached features; the rest of the options may change between two runs that share them."""
    names = (
        "precision",
        "cache_dtype",
        "compile",
        "encode_batch",
        "sources",
        "holdout",
        "holdout_most",
        "threads",
    )
    options = wanted.model_dump(mode="json", include=set(names))
    return {key: ready.identity[key] for key in ("model", "base", "data", "device", "torch")} | {
        "options": options
    }


def _steps(
    ready: Ready, state: RunState, step: Step, feed: Feed, stop: guard.Stop, events: EventFile
) -> None:
    """The rest of an epoch's steps. A process on its own gives up the step under way when SIGTERM comes."""
    progress, options, alone = state.progress, ready.run.options, ready.group.size == 1
    batches = iter(feed.steps(ready.plan(progress.epoch)[progress.step :]))
    saved = time.monotonic()
    while progress.step < ready.steps:
        generator = state.generator.get_state()
        try:
            with stop.at_once(alone):
                batch, encoded = next(batches)
                loss = step.gradients_of(state, batch, encoded)
        except guard.Stopped:
            state.write(ready.run.out, ready.identity, [generator])
            raise SystemExit(128 + signal.SIGTERM) from None
        due = bool(options.save_every_s) and time.monotonic() - saved > options.save_every_s
        due |= bool(options.save_every) and (_done(ready, state) + 1) % options.save_every == 0
        loss, answers = step.update(state, loss, (stop.asked, due))
        progress.add(float(loss.bce), float(loss.dice))
        done = _done(ready, state)
        events.add(
            done, results.step_values(*progress.losses[-1], lr=options.lr_at(progress.epoch))
        )
        ready.progress(done, ready.total, "steps")
        if any(answers):
            state.save(ready.run.out, ready.identity, ready.group)
            saved = time.monotonic()
        if answers[STOP]:
            raise SystemExit(128 + signal.SIGTERM)


def _done(ready: Ready, state: RunState) -> int:
    """Steps of the run so far."""
    return state.progress.epoch * ready.steps + state.progress.step


def _close_epoch(
    ready: Ready, state: RunState, validation: Validation, stop: guard.Stop, events: EventFile
) -> None:
    """Validate, append the curve's row, move the cursor."""
    progress, epoch, steps = state.progress, state.progress.epoch, ready.steps
    bce, dice = (s / steps for s in progress.sums)
    row: dict[str, float] = {"epoch": epoch + 1, "lr": ready.run.options.lr_at(epoch)}
    row |= {"loss": bce + dice, "loss_bce": bce, "loss_dice": dice}
    generators = ready.group.gather(state.generator.get_state())
    try:
        with stop.at_once(ready.group.leads), state.averaged():
            scores = validation.scores(ready.model)
            score = scores.get(f"{Output.hq_token}_mBIoU", float("-inf"))
            if ready.run.options.best and ready.group.leads and score > progress.best:
                results.save_best(ready.model, ready.run.out, epoch + 1)
    except (
        guard.Stopped
    ):  # the steps of the epoch are done: the next run begins with its validation
        state.write(ready.run.out, ready.identity, generators)
        raise SystemExit(128 + signal.SIGTERM) from None
    progress.best = max(progress.best, score)
    progress.curve.append(row | {k: scores[k] for k in sorted(scores)})
    progress.epoch, progress.step, progress.sums = epoch + 1, 0, [0.0, 0.0]
    ready.say(results.epoch_line(progress.curve[-1], ready.run.options.epochs))
    events.add(_done(ready, state), results.epoch_values(progress.curve[-1]))
    if ready.group.leads:
        write_text(ready.run.out / results.CURVES, results.csv_text(progress.curve))
