"""COCO mask AP and boundary AP, class-aware or class-agnostic (UVO).

Mask AP as pycocotools, boundary AP as the Boundary IoU API (matching with min(mask IoU, boundary
IoU), crowd by mask alone; annotations with `ignore` are ignored, which pycocotools does not look
at). Size bins by mask area.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam_base.progress import Progress, silent
from hqsam_metrics.ap.names import ApScore, coco_metrics
from hqsam_metrics.ap.options import (
    Agnostic,
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
MAX_DETS = 100


def limits(max_dets: int | None) -> tuple[int, ...]:
    """Returns the limits of detections at which recall is given: 1, 10 and `max_dets` (100)."""
    most = MAX_DETS if max_dets is None else max_dets
    return (*(limit for limit in (1, 10) if limit < most), most)


def make_plan(
    ratios: tuple[float | None, ...],
    *,
    class_agnostic: bool,
    max_dets: int | None,
    per_instance: bool,
) -> Plan:
    """Returns the plan of the COCO protocol; `ratios`: None for mask AP, a dilation ratio for boundary AP."""
    from hqsam_metrics.ap.accumulate import size_bins
    from hqsam_metrics.ap.detection import Measure, Plan

    bins = size_bins(32, 96)
    measures = tuple(Measure(ratio, bins) for ratio in ratios)
    return Plan(
        measures, limits(max_dets), class_agnostic=class_agnostic, per_instance=per_instance
    )


def protocol(
    *, class_agnostic: bool, max_dets: int | None, area_rule: str, **own: Any
) -> dict[str, Any]:
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


def score_coco_files(
    *,
    pred: Results,
    gt: Truth,
    iou_type: Kind = "segm",
    dilation_ratio: Ratio = 0.02,
    class_agnostic: Agnostic = False,
    max_dets: MaxDets = None,
    area_rule: Area = "mask",
    workers: Workers = 1,
    progress: Progress = silent,
    keep: bool = False,
) -> Result:
    """COCO AP and AR of masks or boundaries.

    Args:
        pred: results `[{image_id, category_id, segmentation, score}]`.
        gt: annotations.
        iou_type: mask AP or boundary AP.
        dilation_ratio: width of the boundary band.
        class_agnostic: match whatever the category.
        max_dets: detections that count per image and category (per image when class-agnostic); 100.
        area_rule: how the area of detections is found, see
            `hqsam_metrics.ap.results.parse_results`.
        workers: processes; changes no number.
        progress: told how far the work is.
        keep: give `Result.kept`, too.

    Raises:
        UserError: see `hqsam_metrics.ap.instances` and `hqsam_metrics.ap.results`.
    """
    from hqsam_base.digest import sha256_file
    from hqsam_metrics.ap import score
    from hqsam_metrics.ap.detection import score_detections
    from hqsam_metrics.ap.instances import check_countable, read_ground_truth
    from hqsam_metrics.ap.results import read_results

    ratio = score.measure_of(iou_type, dilation_ratio)
    truth = read_ground_truth(gt, progress=progress)
    check_countable(truth, boundary=ratio is not None)
    found = read_results(pred, truth, area_rule=area_rule, progress=progress)
    plan = make_plan((ratio,), class_agnostic=class_agnostic, max_dets=max_dets, per_instance=keep)
    scored = score_detections(
        truth, found, score.with_mask_ap(plan), workers=workers, progress=progress
    )
    block = protocol(
        class_agnostic=class_agnostic,
        max_dets=max_dets,
        area_rule=area_rule,
        iou_type=iou_type,
        dilation_ratio=ratio,
        ground_truth_digest=sha256_file(gt)[:16],
    )
    n = len(truth.images)
    tolerated = score.file_warnings(n, "images", found.image, scored.dropped, scored.tables)
    said = score.result_warnings(truth, found, class_agnostic=class_agnostic)
    warnings = [*truth.warnings, *said, *tolerated]
    kept = score.kept(truth, found, scored, plan, gt) if keep else None
    return Result(coco_metrics(scored.tables[0]), n, n, block, warnings, kept=kept)


def cross_check(
    *,
    pred: Path,
    gt: Path,
    iou_type: IouType,
    dilation_ratio: float,
    class_agnostic: bool,
    max_dets: int | None,
    area_rule: AreaRule,
) -> str:
    """Compares with COCOeval on the first images of the files."""
    from hqsam_metrics.crosscheck import check_coco

    return check_coco(
        pred=pred,
        gt=gt,
        iou_type=iou_type,
        dilation_ratio=dilation_ratio,
        class_agnostic=class_agnostic,
        max_dets=max_dets,
        area_rule=area_rule,
    )


@dataclass(frozen=True)
class CocoOptions(DetectionOptions):
    """Options of `coco`.

    Attributes:
        class_agnostic: match whatever the category.
    """

    class_agnostic: bool = False


class CocoScore(ApScore):
    """The metric `coco`."""

    name = "coco"
    version = VERSION
    kind = "coco"
    options = CocoOptions
    score_files = staticmethod(score_coco_files)
    cross_check = staticmethod(cross_check)

    def protocol(self, options: CocoOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return protocol(
            class_agnostic=options.class_agnostic,
            max_dets=options.max_dets,
            score_rule=options.score_rule,
            area_rule="mask",
            dilation_ratio=options.dilation_ratio,
            strict_dilation_ratio=options.strict_dilation_ratio,
            metric="AP AP_B" + ("" if options.strict_dilation_ratio is None else " AP_B_strict"),
        )

    def evaluate(self, data: Predictions, options: CocoOptions, *, progress: Progress) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_metrics.ap import score
        from hqsam_metrics.ap.decoding import mask_workers
        from hqsam_metrics.ap.detection import score_detections

        gt = score.ground_truth(data, lvis=False)
        dt = score.results(data, gt, options, class_agnostic=options.class_agnostic)
        plan = make_plan(
            (None, *options.ratios.values()),
            class_agnostic=options.class_agnostic,
            max_dets=options.max_dets,
            per_instance=True,
        )
        plan = replace(plan, errors=True)
        scored = score_detections(gt, dt, plan, workers=mask_workers(len(dt)), progress=progress)
        metrics: dict[str, float | None] = {}
        for suffix, tables in zip(("", *options.ratios), scored.tables, strict=True):
            metrics |= coco_metrics(tables, suffix)
        found = score.outcome(metrics, data, gt, dt, scored, plan, list(options.ratios))
        return replace(found, diagnosis=score.diagnosis(data, gt, scored, plan))


SCORE = CocoScore()
