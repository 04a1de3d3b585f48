"""LVIS v1 federated AP, by mask and by boundary.

Mask AP as lvis-api (size bins closed at both ends, `iscrowd` not looked at), boundary AP as the Boundary IoU API's LVIS
evaluator (bins half-open, crowds as in COCO): the two programs differ so, and this follows each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_metrics.base import Outcome, ScoreOptions, rules

if TYPE_CHECKING:
    from hqsam_metrics.ap.detection import Plan
    from hqsam_metrics.benchmark_data import Predictions

VERSION = 2
MAX_DETS = 300
# There is no second cut: every detection that is left of an image counts in its category.
_NO_LIMIT = 1 << 40


def make_plan(ratios: tuple[float | None, ...], *, max_dets: int | None, per_instance: bool) -> Plan:
    """Returns the plan of the LVIS protocol; `ratios`: None for mask AP, a dilation ratio for boundary AP."""
    from hqsam_metrics.ap.accumulate import size_bins
    from hqsam_metrics.ap.detection import Measure, Plan

    measures = tuple(Measure(ratio, size_bins(32, 96, closed=ratio is None)) for ratio in ratios)
    return Plan(measures, (_NO_LIMIT,), image_limit=max_dets or MAX_DETS, per_instance=per_instance)


def protocol(*, max_dets: int | None, area_rule: str, **own: Any) -> dict[str, Any]:
    """Returns the rules of the LVIS protocol for the protocol block."""
    return rules(
        "lvis",
        VERSION,
        classes="aware, federated",
        iou_thresholds="0.50:0.05:0.95",
        max_dets=max_dets or MAX_DETS,
        max_dets_per="image",
        area_rule=f"detections: {area_rule}; ground truth: annotation; bins 32^2 96^2, mask closed, boundary half-open",
        boundary_match="min(mask IoU, boundary IoU); crowd: mask IoU over the detection's area",
        ignored="mask: ignore; boundary: iscrowd, ignore",
        empty_mask_rule="detections and annotations without area vanish; 0/0 is 0",
        **own,
    )


@dataclass(frozen=True)
class LvisScore:
    """The metric `lvis`."""

    name: str = "lvis"
    version: int = VERSION
    kind: str = "lvis"

    def protocol(self, options: ScoreOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return protocol(
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
        from hqsam_metrics.ap.names import lvis_metrics

        if options.class_agnostic:
            raise UserError(
                "score.class_agnostic: LVIS is federated by class; use the metric `coco` for class-agnostic AP"
            )
        gt = score.ground_truth(data, lvis=True)
        assert gt.federation is not None
        dt = score.results(data, gt, options)
        ratios = options.ratios
        plan = make_plan((None, *ratios.values()), max_dets=options.max_dets, per_instance=True)
        scored = score_detections(gt, dt, plan, progress=progress)
        metrics: dict[str, float | None] = {}
        for suffix, tables in zip(("", *ratios), scored.tables, strict=True):
            metrics |= lvis_metrics(tables, gt.federation, options.max_dets or MAX_DETS, suffix)
        return score.outcome(metrics, data, gt, scored, list(ratios))


SCORE = LvisScore()
