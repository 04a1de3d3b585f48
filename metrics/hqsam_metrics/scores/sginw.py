"""SGinW: AP of each of 25 sets and their unweighted mean.

The index stage makes one benchmark of the 25 sets: categories are numbered through and their `supercategory` is the set.
Sets share neither images nor categories, so the AP of a set is the mean over its categories, exactly as if the set had
been scored alone (sam-hq, seginw/test_ap_on_seginw.py). The headline weighs sets, not categories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_metrics.base import Outcome, ScoreOptions

if TYPE_CHECKING:
    from hqsam_base.runs import Int
    from hqsam_metrics.ap.accumulate import Tables
    from hqsam_metrics.benchmark_data import Predictions

VERSION = 2


def set_places(ground_truth: Any, category_ids: Int, name: str) -> dict[str, Int]:
    """Returns the places (in the rising `category_ids`) of the categories of each set.

    Args:
        ground_truth: parsed annotations.
        category_ids: int64 [K].
        name: file name for messages.

    Raises:
        UserError: a category without a set, or the sets are not the 25.
    """
    from hqsam_metrics.sginw import check_sets

    owner = {row["id"]: row.get("supercategory") for row in ground_truth["categories"]}
    owners = np.array([str(owner[int(i)]) for i in category_ids])
    check_sets(owners.tolist(), name)
    return {one: np.flatnonzero(owners == one) for one in sorted(set(owners.tolist()))}


def _metrics(tables: Tables, places: dict[str, Int], suffix: str) -> dict[str, float | None]:
    """Returns AP, AP50 and AP75 (means over the sets, None if a set has none) and `AP/<set>`."""
    from hqsam_metrics.sginw import sginw_mean

    ap = f"AP{suffix}"
    out: dict[str, float | None] = {}
    for name, iou in ((ap, None), (f"{ap}50", 0.5), (f"{ap}75", 0.75)):
        values = {one: tables.ap(iou=iou, categories=categories) for one, categories in places.items()}
        out[name] = None if None in values.values() else sginw_mean(values)
        if iou is None:
            out |= {f"{ap}/{one}": value for one, value in values.items()}
    return out


@dataclass(frozen=True)
class SginwScore:
    """The metric `sginw`."""

    name: str = "sginw"
    version: int = VERSION
    kind: str = "coco"

    def protocol(self, options: ScoreOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_metrics.scores.coco import CocoScore

        own = {"evaluator": "hqsam_metrics.sginw", "evaluator_version": VERSION}
        return CocoScore().protocol(options) | own | {"averaging": "unweighted mean over 25 sets"}

    def evaluate(self, data: Predictions, options: ScoreOptions, *, progress: Progress) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_base.json_stream import read_json
        from hqsam_metrics.ap import score
        from hqsam_metrics.ap.detection import score_detections
        from hqsam_metrics.scores.coco import make_plan

        if options.class_agnostic:
            raise UserError(
                "score.class_agnostic: SGinW is scored by class; use the metric `coco` for class-agnostic AP"
            )
        gt = score.ground_truth(data, lvis=False)
        places = set_places(read_json(data.benchmark.ground_truth), gt.category_ids, gt.name)
        dt = score.results(data, gt, options)
        plan = make_plan(
            (None, *options.ratios.values()), class_agnostic=False, max_dets=options.max_dets, per_instance=True
        )
        scored = score_detections(gt, dt, plan, progress=progress)
        metrics: dict[str, float | None] = {}
        for suffix, tables in zip(("", *options.ratios), scored.tables, strict=True):
            metrics |= _metrics(tables, places, suffix)
        return score.outcome(metrics, data, gt, scored, list(options.ratios))


SCORE = SginwScore()
