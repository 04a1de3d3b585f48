"""mIoU and mBIoU: the mean over prompts of mask IoU and boundary IoU with the prompt's ground-truth mask.

Protocol of the four HQ sets and BIG (sam-hq train/train.py `evaluate`): one object an image, pure boundary IoU (no
minimum with the mask IoU), mean over images.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_metrics.base import Outcome, ScoreOptions, Units, rules

if TYPE_CHECKING:
    from hqsam_base.runs import Int
    from hqsam_metrics.benchmark_data import Predictions

VERSION = 1


def mean(values: Any) -> float | None:
    """Returns the mean of the values that are not NaN, exactly rounded whatever the order; None without any."""
    defined = [float(v) for v in values if not math.isnan(v)]
    return math.fsum(defined) / len(defined) if defined else None


@dataclass(frozen=True)
class MasksScore:
    """The metric `masks`."""

    name: str = "masks"
    version: int = VERSION
    kind: str = "masks"

    def protocol(self, options: ScoreOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return rules(
            self.name,
            VERSION,
            metric="mIoU mBIoU",
            averaging="mean over prompts, each against its own ground-truth mask",
            dilation_ratio=options.dilation_ratio,
            strict_dilation_ratio=options.strict_dilation_ratio,
            mask_threshold="logit > 0 at the original size",
            empty_mask_rule="both empty: undefined and left out; one empty: 0",
        )

    def evaluate(self, data: Predictions, options: ScoreOptions, *, progress: Progress) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_metrics.benchmark_data import rle_column, strings
        from hqsam_metrics.masks.one_to_one import paired_ious

        truth = data.benchmark.instances
        target = rle_column(truth, data.benchmark.folder / "instances.parquet").take(_targets(data))
        wrong = np.flatnonzero((target.heights != data.masks.heights) | (target.widths != data.masks.widths))
        prompt_ids = [str(name) for name in strings(data.prompts, "prompt_id")]
        if len(wrong):
            raise UserError(f"{data.folder}: {prompt_ids[wrong[0]]}: prediction and ground truth differ in size")
        ratios = options.ratios
        names = (f"{data.folder}: prediction", f"{data.benchmark.folder}: ground truth of prediction")
        found = paired_ious(data.masks, target, tuple(ratios.values()), names=names, progress=progress)
        metrics = {"mIoU": mean(found.iou)}
        for name, values in zip(("mBIoU", "mBIoU_strict"), found.biou, strict=False):
            metrics[name] = mean(values)
        n_scored = int(np.count_nonzero(~np.isnan(found.iou)))
        warnings = [] if n_scored == len(prompt_ids) else [
            f"{len(prompt_ids) - n_scored} pairs of empty masks are undefined and left out of the means"
        ]  # fmt: skip
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
            f"{data.benchmark.folder / 'prompts.parquet'}: prompt {name} has no ground truth ({len(lost)} such):"
            " its instance_id must be in instances.parquet, or its image must have exactly one instance"
        )
    return row


SCORE = MasksScore()
