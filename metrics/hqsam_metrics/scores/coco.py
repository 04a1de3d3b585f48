"""COCO mask AP and boundary AP, class-aware or class-agnostic (UVO).

Mask AP as pycocotools, boundary AP as the Boundary IoU API (matching with min(mask IoU, boundary IoU), crowd by mask
alone; annotations with `ignore` are ignored, which pycocotools does not look at). Size bins by mask area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hqsam_base.progress import Progress
from hqsam_metrics.base import Outcome, ScoreOptions, rules

if TYPE_CHECKING:
    from hqsam_metrics.ap.detection import Plan
    from hqsam_metrics.benchmark_data import Predictions

VERSION = 2
MAX_DETS = 100


def limits(max_dets: int | None) -> tuple[int, ...]:
    """Returns the limits of detections at which recall is given: 1, 10 and `max_dets` (100)."""
    most = MAX_DETS if max_dets is None else max_dets
    return (*(limit for limit in (1, 10) if limit < most), most)


def make_plan(
    ratios: tuple[float | None, ...], *, class_agnostic: bool, max_dets: int | None, per_instance: bool
) -> Plan:
    """Returns the plan of the COCO protocol; `ratios`: None for mask AP, a dilation ratio for boundary AP."""
    from hqsam_metrics.ap.accumulate import size_bins
    from hqsam_metrics.ap.detection import Measure, Plan

    bins = size_bins(32, 96)
    measures = tuple(Measure(ratio, bins) for ratio in ratios)
    return Plan(measures, limits(max_dets), class_agnostic=class_agnostic, per_instance=per_instance)


def protocol(*, class_agnostic: bool, max_dets: int | None, area_rule: str, **own: Any) -> dict[str, Any]:
    """Returns the rules of the COCO protocol for the protocol block."""
    from hqsam_metrics.ap.score import EMPTY_MASK_RULE

    return rules(
        "coco",
        VERSION,
        classes="agnostic" if class_agnostic else "aware",
        iou_thresholds="0.50:0.05:0.95",
        max_dets=list(limits(max_dets)),
        max_dets_per="image" if class_agnostic else "image and category",
        area_rule=f"detections: {area_rule}; ground truth: annotation; bins 32^2 96^2, closed",
        boundary_match="min(mask IoU, boundary IoU); crowd: mask IoU over the detection's area",
        ignored="mask: iscrowd; boundary: iscrowd, ignore",
        empty_mask_rule=EMPTY_MASK_RULE,
        **own,
    )


@dataclass(frozen=True)
class CocoScore:
    """The metric `coco`."""

    name: str = "coco"
    version: int = VERSION
    kind: str = "coco"

    def protocol(self, options: ScoreOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return protocol(
            class_agnostic=options.class_agnostic,
            max_dets=options.max_dets,
            area_rule="mask",
            dilation_ratio=options.dilation_ratio,
            strict_dilation_ratio=options.strict_dilation_ratio,
            metric="AP AP_B" + ("" if options.strict_dilation_ratio is None else " AP_B_strict"),
        )

    def evaluate(self, data: Predictions, options: ScoreOptions, *, progress: Progress) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_metrics.ap import score
        from hqsam_metrics.ap.detection import score_detections
        from hqsam_metrics.ap.names import coco_metrics

        gt = score.ground_truth(data, lvis=False)
        dt = score.results(data, gt, options)
        plan = make_plan(
            (None, *options.ratios.values()),
            class_agnostic=options.class_agnostic,
            max_dets=options.max_dets,
            per_instance=True,
        )
        scored = score_detections(gt, dt, plan, progress=progress)
        metrics: dict[str, float | None] = {}
        for suffix, tables in zip(("", *options.ratios), scored.tables, strict=True):
            metrics |= coco_metrics(tables, suffix)
        return score.outcome(metrics, data, gt, scored, list(options.ratios))


SCORE = CocoScore()
