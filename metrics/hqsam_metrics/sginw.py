"""SGinW (Segmentation in the Wild): AP of each of 25 sets and their unweighted mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress, silent
from hqsam_metrics.base import rules
from hqsam_metrics.evaluate import IouType, Result, score_coco_files

# Folder names of seginw.zip (sam-hq, seginw/).
SETS = (
    "Airplane-Parts", "Bottles", "Brain-Tumor", "Chicken", "Cows", "Electric-Shaver", "Elephants", "Fruits", "Garbage",
    "Ginger-Garlic", "Hand", "Hand-Metal", "House-Parts", "HouseHold-Items", "Nutterfly-Squireel", "Phones", "Poles",
    "Puppies", "Rail", "Salmon-Fillet", "Strawberry", "Tablets", "Toolkits", "Trash", "Watermelon",
)  # fmt: skip


def check_sets(names: Iterable[str], where: str) -> None:
    """Checks that the sets are the 25: the mean over fewer is another number.

    Raises:
        UserError: a set is missing or unknown.
    """
    there = set(names)
    missing, unknown = sorted(set(SETS) - there), sorted(there - set(SETS))
    if missing or unknown:
        raise UserError(
            f"{where}: SGinW sets missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )


def sginw_mean(per_set: Mapping[str, float | None]) -> float:
    """Returns the unweighted mean AP over the 25 sets.

    Args:
        per_set: AP by set name.

    Raises:
        UserError: a set is missing, unknown or undefined; the mean over fewer sets is another number.
    """
    check_sets(per_set, "the AP of each set")
    values = [per_set[name] for name in SETS]
    if any(value is None or math.isnan(value) for value in values):
        raise UserError("SGinW: a set has no AP; every set needs ground truth and results")
    return math.fsum(value for value in values if value is not None) / len(SETS)


def score_sginw_folders(
    *, pred: Path, gt: Path, iou_type: IouType = "segm", dilation_ratio: float = 0.02, workers: int = 1,
    progress: Progress = silent,
) -> Result:  # fmt: skip
    """Scores SGinW.

    Args:
        pred: results, `seginw-<Set>_val.json`.
        gt: the unpacked seginw folder, `<Set>/valid/_annotations_min1cat.coco.json`.
        iou_type: mask AP or boundary AP.
        dilation_ratio: width of the boundary band.
        workers: processes; changes no number.
        progress: told how far the work is.

    Returns:
        `AP` is the mean; `per_set` in the details.

    Raises:
        UserError: a file is missing or bad.
    """
    per_set: dict[str, float | None] = {}
    digests: dict[str, str] = {}
    warnings: list[str] = []
    for number, name in enumerate(SETS):
        one = score_coco_files(
            pred=pred / f"seginw-{name}_val.json",
            gt=gt / name / "valid" / "_annotations_min1cat.coco.json",
            iou_type=iou_type,
            dilation_ratio=dilation_ratio,
            workers=workers,
        )
        per_set[name] = one.metrics["AP"]
        digests[name] = str(one.protocol["ground_truth_digest"])
        warnings += [f"{name}: {text}" for text in one.warnings]
        progress(number + 1, len(SETS), "scoring sets")
    from hqsam_metrics.ap.score import EMPTY_MASK_RULE
    from hqsam_metrics.scores.sginw import VERSION

    protocol = rules(
        "sginw",
        VERSION,
        metric="mean AP over 25 sets",
        iou_type=iou_type,
        dilation_ratio=dilation_ratio if iou_type == "boundary" else None,
        max_dets=[1, 10, 100],
        averaging="unweighted mean over 25 sets",
        empty_mask_rule=EMPTY_MASK_RULE,
        ground_truth_digest=digests,
    )
    return Result({"AP": sginw_mean(per_set)}, len(SETS), len(SETS), protocol, warnings, {"per_set": per_set})
