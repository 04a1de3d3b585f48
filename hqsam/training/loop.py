"""Train the HQ head: `train` is the entry point of the train stage (docs/formats.md).

SAM is frozen; only the HQ modules train, with the loss of `loss.py` on the HQ token's mask (paper section 3.3). Each
view has one prompt, chosen by the plan: the box, ten foreground points, or a noisy mask fed as a 0/255 picture, as
the official training does.

On the CPU the same inputs give the same bits: the order is planned, the thread count is fixed by an option, and
deterministic algorithms are asked for.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import cv2
import torch
from hqsam_datasets.atomic import write_json, write_text
from hqsam_datasets.errors import UserError
from torch import Tensor

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.hq_sam import Encoded, HQSam
from hqsam.model.options import ModelOptions
from hqsam.training.batch import PROMPT_KINDS, Batch, PromptKind
from hqsam.training.feed import Feed, OnlineFeed, cached_feed
from hqsam.training.loader import Item, TrainingSet, epoch_items, epoch_plan, held_out, n_views
from hqsam.training.loss import MaskLoss, mask_loss
from hqsam.training.options import TrainOptions
from hqsam.training.state import LAST, Progress, RunState, fingerprint, head_digest, remove
from hqsam.training.validate import Validation

__all__ = ["ModelOptions", "TrainOptions", "predict_hq", "train"]

VERSION = 1
HEAD, CURVES, META = "hq_head.safetensors", "curves.csv", "meta.json"
Report = Callable[[int, int, str], None]


def _quiet(_done: int, _total: int, _what: str) -> None:
    """Default progress: none."""


def predict_hq(model: HQSam, batch: Batch, encoded: Encoded) -> Tensor:
    """Logits of the HQ token for each view under its own prompt.

    The views are decoded in groups by kind of prompt, because kinds differ in their number of tokens.

    Args:
        model: gradients flow to its head only.
        batch: the views' prompts.
        encoded: their image features, one row per view.

    Returns:
        ``[B,1,h,w]`` in the order of the batch.
    """
    groups = [(rows, kind) for kind in PROMPT_KINDS if len(rows := batch.rows(kind))]
    logits = torch.cat([_decode(model, batch, encoded, rows, kind) for rows, kind in groups])
    order = torch.cat([rows for rows, _ in groups]).argsort().to(logits.device)
    return logits[order]


def _decode(model: HQSam, batch: Batch, encoded: Encoded, rows: Tensor, kind: PromptKind) -> Tensor:
    device = model.device
    with torch.no_grad():
        if kind == "box":
            prompts = model.embed_prompts(boxes_P4=batch.box_B4[rows].to(device))
        elif kind == "point":
            points, labels = batch.points_BN2[rows].to(device), batch.point_labels_BN[rows].to(device)
            prompts = model.embed_prompts(points_PN2=points, labels_PN=labels)
        else:
            prompts = model.embed_prompts(masks_P1hw=batch.noise_B1mm[rows].to(device))
    return model.decode_hq(encoded[rows.to(device)], prompts).hq_P1hw


@dataclass(frozen=True)
class _Run:
    """A training that is ready to go."""

    model: HQSam
    options: TrainOptions
    seed: int
    samples: Sequence[int]
    views: int
    feed: Feed
    validation: Validation
    out: Path
    fingerprint: str
    report: Report

    def items(self, epoch: int) -> list[Item]:
        return epoch_items(self.samples, views=self.views, cycle=self.options.views == "cycle", epoch=epoch)

    def plan(self, epoch: int) -> list[list[Item]]:
        return epoch_plan(self.items(epoch), seed=self.seed, epoch=epoch, batch_size=self.options.batch_size)


def train(
    *,
    shards: Path,
    prompts: Path,
    model: ModelOptions,
    options: TrainOptions,
    out: Path,
    seed: int,
    report: Report = _quiet,
) -> dict[str, object]:
    """Train the HQ head and write `hq_head.safetensors`, `curves.csv` and, last, `meta.json`.

    A run that was stopped goes on from `last.pt` in `out`, if options, data and base weights are the same, and ends
    with the same bits as one that was never stopped. SIGTERM saves `last.pt` and ends the process with 143.

    Args:
        shards: folder of the shard stage.
        prompts: folder of the augment stage.
        model: the frozen base.
        options: the `train` section.
        out: folder to write.
        seed: initial weights, order of the views, loss points.
        report: progress, called as (done, total, what).

    Returns:
        The content of `meta.json`.

    Raises:
        UserError: empty or unpaired shards, missing or unfitting checkpoint, a plan for another model size, or a loss
            that is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    remove(out / META)
    with _deterministic(options.threads), _scratch(out) as scratch, contextlib.ExitStack() as stack:
        data = TrainingSet(shards=shards, prompts=prompts)
        stack.callback(data.close)
        run = _prepare(data, model, options, out, seed, report, scratch)
        state = _start(run)
        _epochs(run, state)
        return _finish(run, state, data, model)


def _prepare(
    data: TrainingSet, model: ModelOptions, options: TrainOptions, out: Path, seed: int, report: Report, scratch: Path
) -> _Run:
    net = build_model(model, seed=seed).to(_device(options)).train()
    _check_size(data, net)
    keys = [p.key for p in data.places]
    kept_out = held_out(keys, share=options.holdout, most=options.holdout_most)
    samples = [n for n, key in enumerate(keys) if key not in kept_out]
    views = n_views(data)
    validation = Validation(data, [n for n, key in enumerate(keys) if key in kept_out], net, batch=options.encode_batch)
    mark = fingerprint(
        {
            "options": options.model_dump(mode="json"),
            "seed": seed,
            "data": data.digests,
            "backbone": model.backbone,
            "base": _base_digest(model),
        }
    )
    feed = _feed(data, net, options, epoch_items(samples, views=views, cycle=False, epoch=0), scratch, report)
    return _Run(net, options, seed, samples, views, feed, validation, out, mark, report)


def _base_digest(model: ModelOptions) -> str | None:
    return None if model.checkpoint is None else checkpoint.sha256(model.checkpoint)


def _feed(
    data: TrainingSet, net: HQSam, options: TrainOptions, items: Sequence[Item], scratch: Path, report: Report
) -> Feed:
    if options.feed == "online":
        return OnlineFeed(data, net, options.workers)
    return cached_feed(
        data, net, items, batch=options.encode_batch, workers=options.workers, scratch=scratch,
        cache_gib=options.cache_gib, report=report,
    )  # fmt: skip


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


def _start(run: _Run) -> RunState:
    adam = torch.optim.Adam(run.model.head.parameters(), lr=run.options.lr)
    state = RunState(run.model.head, adam, torch.Generator().manual_seed(run.seed), Progress())
    if state.restore(run.out, run.fingerprint):
        run.report(state.progress.epoch, run.options.epochs, "resumed")
    return state


def _epochs(run: _Run, state: RunState) -> None:
    """All epochs from the cursor on; `last.pt` after each, and when SIGTERM asks for the end."""
    with _sigterm() as stopping:
        for epoch in range(state.progress.epoch, run.options.epochs):
            for group in state.adam.param_groups:
                group["lr"] = run.options.lr_at(epoch)
            plan = run.plan(epoch)
            for batch, encoded in run.feed.steps(plan[state.progress.step :]):
                _count(state.progress, _step(run, state, batch, encoded))
                if stopping():
                    state.save(run.out, run.fingerprint)
                    raise SystemExit(128 + signal.SIGTERM)
            _close_epoch(run, state, epoch, len(plan))
            state.save(run.out, run.fingerprint)
            run.report(epoch + 1, run.options.epochs, "epoch")


def _step(run: _Run, state: RunState, batch: Batch, encoded: Encoded) -> MaskLoss:
    """One optimiser step."""
    logits = predict_hq(run.model, batch, encoded)
    loss = mask_loss(
        logits,
        batch.label_B1SS.to(logits.device),
        n_points=run.options.points,
        generator=state.generator,
        oversample=run.options.oversample,
        importance=run.options.importance,
    )
    if not math.isfinite(float(loss.total.detach())):
        progress = state.progress
        raise UserError(
            f"the loss is {float(loss.total.detach())} in epoch {progress.epoch}, step {progress.step}",
            key=", ".join(sorted(set(batch.keys))[:8]),
            cure="lower train.lr, or look at these samples; the run before this epoch is in last.pt",
        )
    state.adam.zero_grad(set_to_none=True)
    loss.total.backward()  # type: ignore[no-untyped-call]
    state.adam.step()
    return loss


def _count(progress: Progress, loss: MaskLoss) -> None:
    progress.step += 1
    progress.sums = [progress.sums[0] + float(loss.bce.detach()), progress.sums[1] + float(loss.dice.detach())]


def _close_epoch(run: _Run, state: RunState, epoch: int, steps: int) -> None:
    """Validate, append the curve's row, move the cursor."""
    progress = state.progress
    bce, dice = (s / steps for s in progress.sums)
    row: dict[str, float] = {"epoch": epoch + 1, "lr": run.options.lr_at(epoch)}
    row |= {"loss": bce + dice, "loss_bce": bce, "loss_dice": dice}
    sam = {k: v for k, v in progress.curve[0].items() if k.startswith("sam_")} if progress.curve else {}
    scores = sam | run.validation.scores(run.model, sam=not sam)
    progress.curve.append(row | {k: scores[k] for k in sorted(scores)})
    progress.epoch, progress.step, progress.sums = epoch + 1, 0, [0.0, 0.0]
    write_text(run.out / CURVES, _csv(progress.curve))


def _csv(rows: Sequence[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()} for row in rows)
    return text.getvalue()


def _finish(run: _Run, state: RunState, data: TrainingSet, model: ModelOptions) -> dict[str, object]:
    """Weights, curve, then meta.json; `last.pt` goes before it, so a complete folder holds no running state."""
    base = _base_digest(model)
    digest = head_digest(run.model.head.state_dict())
    note = {"backbone": model.backbone, "variant": "hq", "base_sha256": base, "digest": digest}
    checkpoint.save_head(run.out / HEAD, run.model.head, metadata=note)
    write_text(run.out / CURVES, _csv(state.progress.curve))
    meta: dict[str, object] = {
        "version": VERSION,
        "model": run.out.name,
        "backbone": model.backbone,
        "base_sha256": base,
        "options": run.options.model_dump(mode="json"),
        "seed": run.seed,
        "n_samples": len(run.samples),
        "n_views": run.views,
        "n_held_out": len(run.validation.cases),
        "n_parameters": sum(p.numel() for p in run.model.head.parameters()),
        "steps": sum(len(run.plan(e)) for e in range(run.options.epochs)),
        "data": data.digests,
        "final": {k: float(f"{v:.6g}") for k, v in state.progress.curve[-1].items()},
        "digest": digest,
    }
    remove(run.out / LAST)
    write_json(run.out / META, meta)
    return meta


def _device(options: TrainOptions) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch finds no CUDA device", key="train.device", cure="set it to auto or cpu")
    wanted = options.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


@contextlib.contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    """Fixed thread counts and deterministic algorithms inside; the caller's settings afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), cv2.getNumThreads()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        if threads:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        cv2.setNumThreads(1)
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)
        cv2.setNumThreads(before[2])


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A temporary folder beside the outputs (feature caches can be large), removed in any case."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.features-", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM instead of dying, so that the step can end and the state be saved. Main thread only."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
