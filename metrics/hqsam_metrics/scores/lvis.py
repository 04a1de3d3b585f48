"""LVIS v1 federated AP, by mask and by boundary.

Mask AP as lvis-api (size bins closed at both ends, `iscrowd` not looked at), boundary AP as the
Boundary IoU API's LVIS evaluator (bins half-open, crowds as in COCO): the two programs differ so,
and this follows each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam_base.progress import Progress, silent
from hqsam_metrics.ap.names import ApScore, lvis_metrics
from hqsam_metrics.ap.options import (
    Area,
    AreaRule,
    DetectionOptions,
    IouType,
    Kind,
    MaxDets,
    Ratio,
    Results,
    Truth,
    Workers,
)
from hqsam_metrics.base import Outcome, Result, rules

if TYPE_CHECKING:
    from hqsam_metrics.ap.detection import Plan
    from hqsam_metrics.benchmark_data import Predictions

VERSION = 2
MAX_DETS = 300
# There is no second cut: every detection that is left of an image counts in its category.
_NO_LIMIT = 1 << 40


def make_plan(
    ratios: tuple[float | None, ...], *, max_dets: int | None, per_instance: bool
) -> Plan:
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
        area_rule=f"detections: {area_rule}; ground truth: annotation; bins 32^2 96^2, mask "
        f"closed, boundary half-open",
        boundary_match="min(mask IoU, boundary IoU); crowd: mask IoU over the detection's area",
        ignored="mask: ignore; boundary: iscrowd, ignore",
        empty_mask_rule="detections and annotations without area vanish; 0/0 is 0",
        **own,
    )


def score_lvis_files(
    *,
    pred: Results,
    gt: Truth,
    iou_type: Kind = "segm",
    dilation_ratio: Ratio = 0.02,
    max_dets: MaxDets = None,
    area_rule: Area = "mask",
    workers: Workers = 1,
    progress: Progress = silent,
    keep: bool = False,
) -> Result:
    """LVIS v1 federated AP and AR of masks or boundaries, 300 detections an image.

    Arguments as `hqsam_metrics.scores.coco.score_coco_files`.
    """
    from hqsam_base.digest import sha256_file
    from hqsam_metrics.ap import score
    from hqsam_metrics.ap.detection import score_detections
    from hqsam_metrics.ap.instances import check_countable, read_ground_truth
    from hqsam_metrics.ap.results import read_results

    ratio = score.measure_of(iou_type, dilation_ratio)
    truth = read_ground_truth(gt, lvis=True, progress=progress)
    check_countable(truth, boundary=ratio is not None)
    found = read_results(pred, truth, area_rule=area_rule, progress=progress)
    plan = make_plan((ratio,), max_dets=max_dets, per_instance=keep)
    scored = score_detections(
        truth, found, score.with_mask_ap(plan), workers=workers, progress=progress
    )
    block = protocol(
        max_dets=max_dets,
        area_rule=area_rule,
        iou_type=iou_type,
        dilation_ratio=ratio,
        ground_truth_digest=sha256_file(gt)[:16],
    )
    assert truth.federation is not None
    metrics = lvis_metrics(scored.tables[0], truth.federation, max_dets or MAX_DETS)
    n = len(truth.images)
    tolerated = score.file_warnings(n, "images", found.image, scored.dropped, scored.tables)
    warnings = [*truth.warnings, *score.result_warnings(truth, found), *tolerated]
    kept = score.kept(truth, found, scored, plan, gt) if keep else None
    return Result(metrics, n, n, block, warnings, kept=kept)


def cross_check(
    *,
    pred: Path,
    gt: Path,
    iou_type: IouType,
    dilation_ratio: float,
    max_dets: int | None,
    area_rule: AreaRule,
) -> str:
    """Compares with lvis-api on the first images of the files."""
    from hqsam_metrics.crosscheck import check_lvis

    return check_lvis(
        pred=pred,
        gt=gt,
        iou_type=iou_type,
        dilation_ratio=dilation_ratio,
        max_dets=max_dets,
        area_rule=area_rule,
    )


class LvisScore(ApScore):
    """The metric `lvis`; it is federated by class, so there is no class-agnostic one."""

    name = "lvis"
    version = VERSION
    kind = "lvis"
    options = DetectionOptions
    score_files = staticmethod(score_lvis_files)
    cross_check = staticmethod(cross_check)

    def protocol(self, options: DetectionOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return protocol(
            score_rule=options.score_rule,
            max_dets=options.max_dets,
            area_rule="mask",
            dilation_ratio=options.dilation_ratio,
            strict_dilation_ratio=options.strict_dilation_ratio,
            metric="AP AP_B" + ("" if options.strict_dilation_ratio is None else " AP_B_strict"),
        )

    def evaluate(
        self, data: Predictions, options: DetectionOptions, *, progress: Progress
    ) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_metrics.ap import score
        from hqsam_metrics.ap.decoding import mask_workers
        from hqsam_metrics.ap.detection import score_detections

        gt = score.ground_truth(data, lvis=True)
        assert gt.federation is not None
        dt = score.results(data, gt, options)
        ratios = options.ratios
        plan = make_plan((None, *ratios.values()), max_dets=options.max_dets, per_instance=True)
        plan = replace(plan, errors=True)
        scored = score_detections(gt, dt, plan, workers=mask_workers(len(dt)), progress=progress)
        metrics: dict[str, float | None] = {}
        for suffix, tables in zip(("", *ratios), scored.tables, strict=True):
            metrics |= lvis_metrics(tables, gt.federation, options.max_dets or MAX_DETS, suffix)
        found = score.outcome(metrics, data, gt, dt, scored, plan, list(ratios))
        return replace(found, diagnosis=score.diagnosis(data, gt, scored, plan))


SCORE = LvisScore()
