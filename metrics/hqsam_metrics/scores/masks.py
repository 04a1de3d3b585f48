"""mIoU and mBIoU: the mean over prompts of mask IoU and boundary IoU with the prompt's ground-truth mask.

Protocol of the four HQ sets and BIG (sam-hq train/train.py `evaluate`): one object an image, pure
boundary IoU (no minimum with the mask IoU), mean over images.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.filenames import one_form, visible
from hqsam_base.processes import run_parts
from hqsam_base.progress import Progress, silent
from hqsam_metrics.ap.options import Ratio, Workers
from hqsam_metrics.base import (
    BandOptions,
    Kept,
    Option,
    Outcome,
    Quantity,
    Result,
    Score,
    Units,
    Value,
    View,
    check_ratio,
    rules,
)

if TYPE_CHECKING:
    from hqsam_base.runs import Int
    from hqsam_metrics.benchmark_data import Predictions
    from hqsam_metrics.scores._cascadepsp import Cascade

VERSION = 1


def mean(values: Any) -> float | None:
    """Returns the mean of the values that are not NaN, exactly rounded whatever the order; None without any."""
    defined = [float(v) for v in values if not math.isnan(v)]
    return math.fsum(defined) / len(defined) if defined else None


@dataclass(frozen=True)
class _Pair:
    key: str
    pred: Path
    gt: Path
    ratio: float
    cascadepsp: bool


@dataclass(frozen=True)
class _Item:
    key: str
    iou: float
    biou: float
    digest: bytes
    cascade: Cascade | None


# Pictures that are no PNG: in a folder of masks they are masks that somebody meant to be scored.
_OTHER_PICTURES = (".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def _pictures(folder: Path, option: str) -> dict[str, Path]:
    """Returns the pictures of a folder by their stem in one Unicode form."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder ({option})")
    files = visible(folder.iterdir())
    others = [path for path in files if path.suffix.lower() in _OTHER_PICTURES]
    if others:
        raise UserError(
            f"{others[0]}: is not a PNG ({len(others)} such files, {option}); convert the masks to "
            f"PNG, 0 and 255"
        )
    found: dict[str, Path] = {}
    for path in (path for path in files if path.suffix.lower() == ".png"):
        stem = one_form(path.stem)
        if stem in found:
            raise UserError(
                f"{path}: {found[stem].name} lies beside it ({option}); a mask has one file"
            )
        found[stem] = path
    if not found:
        raise UserError(
            f"{folder}: has no PNG files ({option}); files in folders below it are not looked for"
        )
    return found


def _score_pair(pairs: list[_Pair], number: int) -> _Item:
    from hqsam_metrics.masks.iou import boundary_iou, mask_iou
    from hqsam_metrics.masks.png import read_mask_png

    pair = pairs[number]
    pred, target = read_mask_png(pair.pred), read_mask_png(pair.gt)
    if pred.shape != target.shape:
        raise UserError(
            f"{pair.pred}: is {pred.shape[0]} x {pred.shape[1]}, {pair.gt} is {target.shape[0]} x "
            f"{target.shape[1]}"
            " (height x width); masks are never resized: predict at the original size"
        )
    biou = boundary_iou(pred=pred, target=target, dilation_ratio=pair.ratio)
    digest = hashlib.sha256(pair.gt.read_bytes()).digest()
    cascade = None
    if pair.cascadepsp:
        from hqsam_metrics.scores._cascadepsp import measure

        cascade = measure(key=pair.key, pred=pred, target=target)
    return _Item(pair.key, mask_iou(pred=pred, target=target), biou, digest, cascade)


def score_mask_folders(
    *,
    pred: Annotated[
        Path, Option("Predicted masks, PNG, foreground 255.", name="--pred", metavar="DIR")
    ],
    gt: Annotated[
        Path, Option("Ground-truth masks of the same file names.", name="--gt", metavar="DIR")
    ],
    dilation_ratio: Ratio = 0.02,
    cascadepsp: Annotated[
        bool, Option("Add CascadePSP's own metrics of BIG: pooled IoU and mBA.")
    ] = False,
    curve: Annotated[
        bool,
        Option("Add the share of pairs above each boundary-IoU threshold.", name="--recall-curve"),
    ] = False,
    workers: Workers = 1,
    progress: Progress = silent,
    keep: bool = False,
) -> Result:
    """Mask IoU and boundary IoU of PNG pairs, and their means (mIoU, mBIoU).

    Masks are paired by file stem.

    Args:
        pred: folder of predicted masks.
        gt: folder of ground-truth masks; foreground is above 128 in both.
        dilation_ratio: width of the boundary band.
        cascadepsp: add the metrics `IoU_pooled` and `mBA` of CascadePSP.
        curve: add the share of pairs above each boundary-IoU threshold (`recall_curve`).
        workers: processes; changes no number.
        progress: told how far the work is.
        keep: give `Result.kept`, too.

    Raises:
        UserError: a ground-truth mask without prediction or the other way round, sizes that differ,
            0/1 masks, files that are no pictures.
    """
    check_ratio(dilation_ratio, "--dilation-ratio")
    found, real = _pictures(pred, "--pred"), _pictures(gt, "--gt")
    for one, other, here, there in ((real, found, gt, pred), (found, real, pred, gt)):
        orphans = sorted(set(one) - set(other))
        if orphans:
            raise UserError(
                f"{here / one[orphans[0]].name}: has no partner in {there} ({len(orphans)} such "
                f"files)"
            )
    pairs = [_Pair(key, found[key], real[key], dilation_ratio, cascadepsp) for key in sorted(real)]
    items = list(
        run_parts(
            _score_pair, pairs, len(pairs), workers=workers, progress=progress, what="scoring masks"
        )
    )
    digest = hashlib.sha256(
        b"".join(item.key.encode() + b"\0" + item.digest for item in items)
    ).hexdigest()
    protocol = rules(
        "masks",
        VERSION,
        metric="mIoU mBIoU",
        averaging="mean over pairs",
        dilation_ratio=dilation_ratio,
        mask_threshold="value > 128",
        empty_mask_rule="both empty: undefined and left out; one empty: 0",
        ground_truth_digest=digest[:16],
    )
    metrics = {"mIoU": mean(i.iou for i in items), "mBIoU": mean(i.biou for i in items)}
    if parts := [item.cascade for item in items if item.cascade is not None]:
        from hqsam_metrics.scores._cascadepsp import total

        whole = total(parts)
        metrics |= {"IoU_pooled": whole.iou, "mBA": whole.mba}
    n_scored = sum(not math.isnan(item.iou) for item in items)
    if not n_scored:
        raise UserError(
            f"{gt}: no mask has a pixel, nor has one of {pred}: there is nothing to score"
        )
    empty = len(items) - n_scored
    warnings = (
        [f"{empty} pairs of empty masks are undefined and left out of the means"] if empty else []
    )
    rows = [{"key": i.key, "iou": i.iou, "biou": i.biou} for i in items]
    details: dict[str, Any] = {"per_item": rows}
    if curve:
        from hqsam_metrics.curves import THRESHOLDS, recall_curve

        shares = recall_curve([item.biou for item in items]).tolist()
        details["recall_curve"] = {"thresholds": list(THRESHOLDS), "above": shares}
    kept = _kept(pairs, items) if keep else None
    return Result(metrics, len(items), n_scored, protocol, warnings, details, kept)


def _kept(pairs: list[_Pair], items: list[_Item]) -> Kept:
    from hqsam_metrics.masks.png import read_mask_png

    def views(row: int) -> list[View]:
        pair = pairs[row]
        return [View(pair.gt.name, read_mask_png(pair.gt), read_mask_png(pair.pred))]

    keys = [item.key for item in items]
    values = {name: np.array([getattr(i, name) for i in items]) for name in ("iou", "biou")}
    return Kept(Units(keys, keys, keys, values), views)


class MasksScore(Score):
    """The metric `masks`."""

    name = "masks"
    version = VERSION
    kind = "masks"
    options = BandOptions
    columns = ("iou", "biou")
    values: ClassVar = {
        "mIoU": Value(mean_of=Quantity("instance IoU", ("iou",))),
        "mBIoU": Value(mean_of=Quantity("instance boundary IoU", ("biou",))),
    }
    headline = ("mIoU", "mBIoU")
    pictured = Quantity("boundary IoU", ("biou",))
    score_files = staticmethod(score_mask_folders)

    def protocol(self, options: BandOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return rules(
            self.name,
            VERSION,
            metric="mIoU mBIoU",
            averaging="mean over prompts, each against its own ground-truth mask",
            dilation_ratio=options.dilation_ratio,
            strict_dilation_ratio=options.strict_dilation_ratio,
            mask_threshold="logit > 0 at the original size",
            score_rule="none",
            empty_mask_rule="both empty: undefined and left out; one empty: 0",
        )

    def evaluate(self, data: Predictions, options: BandOptions, *, progress: Progress) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_metrics.ap.decoding import mask_workers
        from hqsam_metrics.benchmark_data import rle_column, strings
        from hqsam_metrics.masks.one_to_one import paired_ious

        truth = data.benchmark.instances
        target = rle_column(truth, data.benchmark.folder / "instances.parquet").take(_targets(data))
        wrong = np.flatnonzero(
            (target.heights != data.masks.heights) | (target.widths != data.masks.widths)
        )
        prompt_ids = [str(name) for name in strings(data.prompts, "prompt_id")]
        if len(wrong):
            raise UserError(
                f"{data.folder}: {prompt_ids[wrong[0]]}: prediction and ground truth differ in size"
            )
        ratios = options.ratios
        names = (
            f"{data.folder}: prediction",
            f"{data.benchmark.folder}: ground truth of prediction",
        )
        found = paired_ious(
            data.masks,
            target,
            tuple(ratios.values()),
            names=names,
            workers=mask_workers(len(data.masks)),
            progress=progress,
        )
        metrics = {"mIoU": mean(found.iou)}
        for name, values in zip(("mBIoU", "mBIoU_strict"), found.biou, strict=False):
            metrics[name] = mean(values)
        n_scored = int(np.count_nonzero(~np.isnan(found.iou)))
        warnings = (
            []
            if n_scored == len(prompt_ids)
            else [
                f"{len(prompt_ids) - n_scored} pairs of empty masks are undefined and left out of "
                f"the means"
            ]
        )
        keys = data.keys()
        units = Units(keys, keys, prompt_ids, {"iou": found.iou, "biou": found.biou[0]})
        return Outcome(metrics, len(prompt_ids), n_scored, units, warnings)


def _targets(data: Predictions) -> Int:
    """Returns the ground-truth row of each prompt: the instance it names, else the only one of its image."""
    from hqsam_metrics.benchmark_data import lookup, strings

    truth = data.benchmark.instances
    row = lookup(data.prompts["instance_id"], truth["instance_id"])
    first = lookup(data.prompts["key"], truth["key"])
    keys = strings(truth, "key")
    counts = Counter(keys)
    alone = np.array([counts[key] == 1 for key in keys], bool)
    named = np.array([name is not None for name in strings(data.prompts, "instance_id")], bool)
    row = np.where(named, row, np.where((first >= 0) & alone[first], first, -1))
    lost = np.flatnonzero(row < 0)
    if len(lost):
        name = data.prompts["prompt_id"][int(lost[0])]
        raise UserError(
            f"{data.benchmark.folder / 'prompts.parquet'}: prompt {name} has no ground truth "
            f"({len(lost)} such):"
            " its instance_id must be in instances.parquet, or its image must have exactly one "
            "instance"
        )
    return row


SCORE = MasksScore()
