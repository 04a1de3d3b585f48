"""SGinW: AP of each of 25 sets and their unweighted mean.

The index stage makes one benchmark of the 25 sets: categories are numbered through and their
`supercategory` is the set. Sets share neither images nor categories, so the AP of a set is the mean
over its categories, exactly as if the set had been scored alone (sam-hq,
seginw/test_ap_on_seginw.py). The headline weighs sets, not categories.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress, silent
from hqsam_base.sginw import SETS
from hqsam_metrics.ap.names import ApScore
from hqsam_metrics.ap.options import DetectionOptions, Kind, Ratio, Workers
from hqsam_metrics.base import Kept, Option, Outcome, Result, Units, View, rules

if TYPE_CHECKING:
    from hqsam_base.runs import Int
    from hqsam_metrics.ap.accumulate import Tables
    from hqsam_metrics.ap.instances import GroundTruth
    from hqsam_metrics.benchmark_data import Predictions

VERSION = 2


def check_sets(names: Iterable[str], where: str) -> None:
    """Checks that the sets are the 25: the mean over fewer is another number.

    Raises:
        UserError: a set is missing or unknown.
    """
    there = set(names)
    missing, unknown = sorted(set(SETS) - there), sorted(there - set(SETS))
    if missing or unknown:
        raise UserError(
            f"{where}: SGinW sets missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(unknown) or 'none'}"
        )


def sginw_mean(per_set: Mapping[str, float | None]) -> float:
    """Returns the unweighted mean AP over the 25 sets.

    Args:
        per_set: AP by set name.

    Raises:
        UserError: a set is missing, unknown or undefined; the mean over fewer sets is another
            number.
    """
    check_sets(per_set, "the AP of each set")
    values = [per_set[name] for name in SETS]
    if any(value is None or math.isnan(value) for value in values):
        raise UserError("SGinW: a set has no AP; every set needs ground truth and results")
    return math.fsum(value for value in values if value is not None) / len(SETS)


def score_sginw_folders(
    *,
    pred: Annotated[Path, Option("Results: seginw-<Set>_val.json.", name="--pred", metavar="DIR")],
    gt: Annotated[Path, Option("The unpacked seginw folder.", name="--gt", metavar="DIR")],
    iou_type: Kind = "segm",
    dilation_ratio: Ratio = 0.02,
    workers: Workers = 1,
    progress: Progress = silent,
    keep: bool = False,
) -> Result:
    """SGinW: mean AP over its 25 sets.

    Args:
        pred: results, `seginw-<Set>_val.json`.
        gt: the unpacked seginw folder, `<Set>/valid/_annotations_min1cat.coco.json`.
        iou_type: mask AP or boundary AP.
        dilation_ratio: width of the boundary band.
        workers: processes; changes no number.
        progress: told how far the work is.
        keep: give `Result.kept`, too.

    Returns:
        `AP` is the mean; `per_set` in the details.

    Raises:
        UserError: a file is missing or bad.
    """
    from hqsam_metrics.ap.score import EMPTY_MASK_RULE
    from hqsam_metrics.scores.coco import score_coco_files

    per_set: dict[str, float | None] = {}
    digests: dict[str, str] = {}
    warnings: list[str] = []
    kept: list[Kept] = []
    for number, name in enumerate(SETS):
        one = score_coco_files(
            pred=pred / f"seginw-{name}_val.json",
            gt=gt / name / "valid" / "_annotations_min1cat.coco.json",
            iou_type=iou_type,
            dilation_ratio=dilation_ratio,
            workers=workers,
            keep=keep,
        )
        per_set[name] = one.metrics["AP"]
        kept += [one.kept] if one.kept else []
        digests[name] = str(one.protocol["ground_truth_digest"])
        warnings += [f"{name}: {text}" for text in one.warnings]
        progress(number + 1, len(SETS), "scoring sets")
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
    metrics: dict[str, float | None] = {"AP": sginw_mean(per_set)}
    together, n = _together(kept) if keep else None, len(SETS)
    return Result(metrics, n, n, protocol, warnings, {"per_set": per_set}, together)


def _together(parts: Sequence[Kept]) -> Kept:
    """Returns what was kept of each set as of one, whose parts are drawn on their own."""
    from hqsam_metrics.ap.resample import joined

    owner = [(s, row) for s, one in enumerate(parts) for row in range(len(one.units.unit))]

    def views(row: int) -> list[View]:
        s, own = owner[row]
        inside = f"{SETS[s]}/valid"
        return [replace(v, image=f"{inside}/{v.image}") for v in parts[s].views(own)]

    def texts(name: str) -> list[str]:
        return [f"{SETS[s]}/{getattr(parts[s].units, name)[row]}" for s, row in owner]

    values = {
        name: np.concatenate([one.units.values[name] for one in parts])
        for name in parts[0].units.values
    }
    matches = joined([one.matches for one in parts if one.matches is not None])
    return Kept(Units(texts("key"), texts("cluster"), texts("unit"), values), views, matches)


def set_places(ground_truth: Any, category_ids: Int, name: str) -> dict[str, Int]:
    """Returns the places (in the rising `category_ids`) of the categories of each set.

    Args:
        ground_truth: parsed annotations.
        category_ids: int64 [K].
        name: file name for messages.

    Raises:
        UserError: a category without a set, or the sets are not the 25.
    """
    owner = {row["id"]: row.get("supercategory") for row in ground_truth["categories"]}
    owners = np.array([str(owner[int(i)]) for i in category_ids])
    check_sets(owners.tolist(), name)
    return {one: np.flatnonzero(owners == one) for one in sorted(set(owners.tolist()))}


def _metrics(tables: Tables, places: dict[str, Int], suffix: str) -> dict[str, float | None]:
    """Returns AP, AP50 and AP75 (means over the sets, None if a set has none) and `AP/<set>`."""
    ap = f"AP{suffix}"
    out: dict[str, float | None] = {}
    for name, iou in ((ap, None), (f"{ap}50", 0.5), (f"{ap}75", 0.75)):
        values = {
            one: tables.ap(iou=iou, categories=categories) for one, categories in places.items()
        }
        out[name] = None if None in values.values() else sginw_mean(values)
        if iou is None:
            out |= {f"{ap}/{one}": value for one, value in values.items()}
    return out


def _image_sets(gt: GroundTruth, truth: Any, places: dict[str, Int]) -> Int:
    """Returns the set of each image, as a place in `places`: that of its objects, else the first folder of its file name.

    -1 for an image that neither tells of.
    """
    names = list(places)
    folder = {row["id"]: str(row.get("file_name", "")).partition("/")[0] for row in truth["images"]}
    found = [
        names.index(folder[i]) if folder.get(i) in names else -1 for i in gt.images.ids.tolist()
    ]
    out = np.array(found, np.int64)
    for number, categories in enumerate(places.values()):
        out[gt.image[np.isin(gt.category, categories)]] = number
    return out


class SginwScore(ApScore):
    """The metric `sginw`; it is scored by class, so there is no class-agnostic one."""

    name = "sginw"
    version = VERSION
    kind = "coco"
    options = DetectionOptions
    score_files = staticmethod(score_sginw_folders)

    def protocol(self, options: DetectionOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_metrics.scores.coco import SCORE as COCO
        from hqsam_metrics.scores.coco import CocoOptions

        own = {"evaluator": "hqsam_metrics.sginw", "evaluator_version": VERSION}
        rules_of_coco = COCO.protocol(CocoOptions(**vars(options)))
        return rules_of_coco | own | {"averaging": "unweighted mean over 25 sets"}

    def evaluate(
        self, data: Predictions, options: DetectionOptions, *, progress: Progress
    ) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_base.json_stream import read_json
        from hqsam_metrics.ap import score
        from hqsam_metrics.ap.decoding import mask_workers
        from hqsam_metrics.ap.detection import score_detections
        from hqsam_metrics.scores.coco import make_plan

        gt = score.ground_truth(data, lvis=False)
        truth = read_json(data.benchmark.ground_truth)
        places = set_places(truth, gt.category_ids, gt.name)
        dt = score.results(data, gt, options)
        plan = make_plan(
            (None, *options.ratios.values()),
            class_agnostic=False,
            max_dets=options.max_dets,
            per_instance=True,
        )
        scored = score_detections(gt, dt, plan, workers=mask_workers(len(dt)), progress=progress)
        metrics: dict[str, float | None] = {}
        for suffix, tables in zip(("", *options.ratios), scored.tables, strict=True):
            metrics |= _metrics(tables, places, suffix)
        return score.outcome(
            metrics,
            data,
            gt,
            dt,
            scored,
            plan,
            list(options.ratios),
            stratum=_image_sets(gt, truth, places),
        )


SCORE = SginwScore()
