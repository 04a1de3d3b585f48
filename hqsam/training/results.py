"""What a training leaves behind: weights, curve, `meta.json` last."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from hqsam.model import checkpoint, convert
from hqsam.model.hq_sam import HQSam
from hqsam.model.outputs import Output
from hqsam.training.group import Group
from hqsam.training.options import TrainOptions
from hqsam.training.state import LAST, RunState, TrainProgress, head_digest, remove
from hqsam.training.train_run import TrainRun
from hqsam_base.atomic import write_json, write_text

VERSION = 1
HEAD, BEST, MERGED, CURVES, META = (
    "hq_head.safetensors",
    "best.safetensors",
    "sam_hq.pth",
    "curves.csv",
    "meta.json",
)
COLUMNS = ("epoch", "lr", "loss", "loss_bce", "loss_dice")
"""Of the curve; a held-out slice adds its scores."""


def csv_text(rows: Sequence[dict[str, float]]) -> str:
    """The curve as `dvc plots` reads it: a header, then one row per epoch, of which there may be none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0] if rows else COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()} for row in rows
    )
    return text.getvalue()


def step_values(bce: float, dice: float, *, lr: float) -> dict[str, float]:
    """What the event file shows of a step, by tag."""
    return {
        "train/loss": bce + dice,
        "train/loss_bce": bce,
        "train/loss_dice": dice,
        "train/lr": lr,
    }


def epoch_values(row: Mapping[str, float]) -> dict[str, float]:
    """What the event file shows of an epoch: the validation of SAM and of HQ-SAM."""
    return {
        f"validation/{name}": value
        for name, value in row.items()
        if name.endswith(("_mIoU", "_mBIoU"))
    }


def epoch_line(row: Mapping[str, float], epochs: int) -> str:
    """What the log says of an epoch.

    Args:
        row: of the curve.
        epochs: of the run.
    """
    text = f"epoch {row['epoch']:.0f} of {epochs}: lr {row['lr']:g}, loss {row['loss']:.4f}"
    text += f" (bce {row['loss_bce']:.4f}, dice {row['loss_dice']:.4f})"
    names = [name for name in (Output.sam, Output.hq_token, Output.hq_sum) if f"{name}_mIoU" in row]
    scores = [
        f"{name} {100 * row[f'{name}_mIoU']:.1f} / {100 * row[f'{name}_mBIoU']:.1f}"
        for name in names
    ]
    return f"{text}; held out, mIoU / mBIoU: {', '.join(scores)}" if scores else text


def past(
    progress: TrainProgress, steps: int, options: TrainOptions
) -> list[tuple[int, dict[str, float]]]:
    """The event file so far, as (steps done, values).

    Args:
        progress: of the run.
        steps: of an epoch.
        options: the `train` section.
    """
    rows = [
        (number + 1, step_values(*losses, lr=options.lr_at(number // steps)))
        for number, losses in enumerate(progress.losses)
    ]
    rows += [(steps * (epoch + 1), epoch_values(row)) for epoch, row in enumerate(progress.curve)]
    return sorted(rows, key=lambda row: row[0])  # stable: an epoch's values follow its last step


def save_best(model: HQSam, out: Path, epoch: int) -> None:
    """Keep the parameters of the best epoch so far."""
    note = {"backbone": model.backbone.name, "variant": model.variant, "epoch": epoch}
    checkpoint.save_head(out / BEST, model.head, metadata=note)


def finish(
    model: HQSam, state: RunState, about: dict[str, object], run: TrainRun, group: Group
) -> dict[str, object]:
    """Write weights and curve, then meta.json; `last.pt` goes before it, so a complete folder holds no running state.

    Args:
        model: the trained model.
        state: of the run.
        about: the content of meta.json but for what is known only now.
        run: what was asked for.
        group: the first process writes.

    Returns:
        The content of meta.json.
    """
    options, out = run.options, run.out
    with state.averaged():
        digest = head_digest(model.head.state_dict())
        last = {k: float(f"{v:.6g}") for row in state.progress.curve[-1:] for k, v in row.items()}
        meta = {"version": VERSION, **about, "final": last, "digest": digest}
        if group.leads:
            note = {k: meta[k] for k in ("backbone", "variant", "base_sha256", "digest")}
            checkpoint.save_head(out / HEAD, model.head, metadata=note)
            if options.merged:
                convert.write(model, out / MERGED, "hq_sam")
            for name, kept in ((BEST, options.best), (MERGED, options.merged)):
                if not kept:  # of a part of this run that ran under other options
                    remove(out / name)
            write_text(out / CURVES, csv_text(state.progress.curve))
            remove(out / LAST)
            write_json(out / META, meta)
    group.wait()
    return meta
