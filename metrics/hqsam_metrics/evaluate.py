"""Scoring files that anyone may have: folders of PNGs, COCO / LVIS / YouTube-VIS results, DAVIS results.

Each function returns a `Result` whose `to_dict` is the out.json of `hqsam score`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.filenames import one_form, visible
from hqsam_base.progress import Progress, silent
from hqsam_metrics.ap import names, score
from hqsam_metrics.ap.instances import AreaRule
from hqsam_metrics.base import protocol_hash, rules
from hqsam_metrics.files import plain, sha256_file
from hqsam_metrics.parallel import run_parts

if TYPE_CHECKING:
    from hqsam_base.runs import Int
    from hqsam_metrics.ap.accumulate import Tables
    from hqsam_metrics.ap.detection import Plan
    from hqsam_metrics.cascadepsp import Cascade

IouType = Literal["segm", "boundary"]


@dataclass(frozen=True)
class Result:
    """What one evaluation gives.

    Attributes:
        metrics: value by name, None where undefined.
        n_expected: units (pairs, images, videos, objects) that the ground truth asks for.
        n_scored: units that have a value.
        protocol: everything that can move a number.
        warnings: what the protocol tolerates but should be known.
        details: `per_item` or `per_object`.
    """

    metrics: dict[str, float | None]
    n_expected: int
    n_scored: int
    protocol: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of out.json."""
        content = {
            "metrics": self.metrics,
            "n_expected": self.n_expected,
            "n_scored": self.n_scored,
            "protocol": self.protocol,
            "protocol_hash": protocol_hash(self.protocol),
            "warnings": self.warnings,
            **self.details,
        }
        out: dict[str, Any] = plain(content)
        return out


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


def _check_ratio(ratio: float) -> None:
    if not (math.isfinite(ratio) and 0 < ratio < 1):
        raise UserError(f"--dilation-ratio is {ratio}: it must lie between 0 and 1 (0.02, or 0.01 for strict)")


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
            f"{others[0]}: is no PNG ({len(others)} such files, {option}); convert the masks to PNG, 0 and 255"
        )
    found: dict[str, Path] = {}
    for path in (path for path in files if path.suffix.lower() == ".png"):
        stem = one_form(path.stem)
        if stem in found:
            raise UserError(f"{path}: {found[stem].name} lies beside it ({option}); a mask has one file")
        found[stem] = path
    if not found:
        raise UserError(f"{folder}: has no PNG files ({option}); files in folders below it are not looked for")
    return found


def _score_pair(pairs: list[_Pair], number: int) -> _Item:
    from hqsam_metrics.masks.iou import boundary_iou, mask_iou
    from hqsam_metrics.masks.png import read_mask_png

    pair = pairs[number]
    pred, target = read_mask_png(pair.pred), read_mask_png(pair.gt)
    if pred.shape != target.shape:
        raise UserError(
            f"{pair.pred}: is {pred.shape[0]} x {pred.shape[1]}, {pair.gt} is {target.shape[0]} x {target.shape[1]}"
            " (height x width); masks are never resized: predict at the original size"
        )
    biou = boundary_iou(pred=pred, target=target, dilation_ratio=pair.ratio)
    digest = hashlib.sha256(pair.gt.read_bytes()).digest()
    cascade = None
    if pair.cascadepsp:
        from hqsam_metrics.cascadepsp import measure

        cascade = measure(key=pair.key, pred=pred, target=target)
    return _Item(pair.key, mask_iou(pred=pred, target=target), biou, digest, cascade)


def score_mask_folders(
    *, pred: Path, gt: Path, dilation_ratio: float = 0.02, cascadepsp: bool = False, curve: bool = False,
    workers: int = 1, progress: Progress = silent,
) -> Result:  # fmt: skip
    """Scores PNG masks paired by file stem.

    Args:
        pred: folder of predicted masks.
        gt: folder of ground-truth masks; foreground is above 128 in both.
        dilation_ratio: width of the boundary band.
        cascadepsp: add the metrics `IoU_pooled` and `mBA` of CascadePSP.
        curve: add the share of pairs above each boundary-IoU threshold (`recall_curve`).
        workers: processes; changes no number.
        progress: told how far the work is.

    Raises:
        UserError: a ground-truth mask without prediction or the other way round, sizes that differ, 0/1 masks, files
            that are no pictures.
    """
    from hqsam_metrics.scores.masks import VERSION, mean

    _check_ratio(dilation_ratio)
    found, real = _pictures(pred, "--pred"), _pictures(gt, "--gt")
    for one, other, here, there in ((real, found, gt, pred), (found, real, pred, gt)):
        orphans = sorted(set(one) - set(other))
        if orphans:
            raise UserError(f"{here / one[orphans[0]].name}: has no partner in {there} ({len(orphans)} such files)")
    pairs = [_Pair(key, found[key], real[key], dilation_ratio, cascadepsp) for key in sorted(real)]
    items = list(run_parts(_score_pair, pairs, len(pairs), workers=workers, progress=progress, what="scoring masks"))
    digest = hashlib.sha256(b"".join(item.key.encode() + b"\0" + item.digest for item in items)).hexdigest()
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
    metrics = {"mIoU": mean(i.iou for i in items), "mBIoU": mean(i.biou for i in items), **_cascade(items)}
    n_scored = sum(not math.isnan(item.iou) for item in items)
    if not n_scored:
        raise UserError(f"{gt}: no mask has a pixel, nor has one of {pred}: there is nothing to score")
    empty = len(items) - n_scored
    warnings = [f"{empty} pairs of empty masks are undefined and left out of the means"] if empty else []
    rows = [{"key": i.key, "iou": i.iou, "biou": i.biou} for i in items]
    details: dict[str, Any] = {"per_item": rows}
    if curve:
        from hqsam_metrics.curves import THRESHOLDS, recall_curve

        shares = recall_curve([item.biou for item in items]).tolist()
        details["recall_curve"] = {"thresholds": list(THRESHOLDS), "above": shares}
    return Result(metrics, len(items), n_scored, protocol, warnings, details)


def _cascade(items: list[_Item]) -> dict[str, float | None]:
    parts = [item.cascade for item in items if item.cascade is not None]
    if not parts:
        return {}
    from hqsam_metrics.cascadepsp import total

    whole = total(parts)
    return {"IoU_pooled": whole.iou, "mBA": whole.mba}


def _measure(iou_type: IouType, dilation_ratio: float) -> float | None:
    _check_ratio(dilation_ratio)
    return dilation_ratio if iou_type == "boundary" else None


def _with_mask_ap(plan: Plan) -> Plan:
    """Adds mask AP over all sizes behind boundary AP, for the comparison of the two: the IoUs are computed anyway."""
    from hqsam_metrics.ap.detection import Measure

    first = plan.measures[0]
    return plan if first.ratio is None else replace(plan, measures=(first, Measure(None, first.bins[:1])))


def _warnings(n_units: int, unit: str, used: Int, dropped: dict[str, int], tables: tuple[Tables, ...]) -> list[str]:
    """What the protocols tolerate: units without a detection, detections that do not count, an AP_B above AP.

    Args:
        n_units: images or videos of the ground truth.
        unit: their name.
        used: place of the image or video of each detection.
        dropped: why and how many detections do not count.
        tables: of the AP that was asked for and, when that is of boundaries, of mask AP.
    """
    out = score.dropped_warnings(dropped)
    without = n_units - len(np.unique(used))
    if without:
        out.append(f"{without} of {n_units} {unit} have no detection: their objects count as missed")
    if len(tables) > 1:
        out += score.ap_warnings({"AP": tables[1].ap(), "AP_B": tables[0].ap()}, ["_B"])
    return out


def score_coco_files(
    *,
    pred: Path,
    gt: Path,
    iou_type: IouType = "segm",
    dilation_ratio: float = 0.02,
    class_agnostic: bool = False,
    max_dets: int | None = None,
    area_rule: AreaRule = "mask",
    workers: int = 1,
    progress: Progress = silent,
) -> Result:
    """Scores a COCO results file.

    Args:
        pred: results `[{image_id, category_id, segmentation, score}]`.
        gt: annotations.
        iou_type: mask AP or boundary AP.
        dilation_ratio: width of the boundary band.
        class_agnostic: match whatever the category.
        max_dets: detections that count per image and category (per image when class-agnostic); 100.
        area_rule: how the area of detections is found, see `hqsam_metrics.ap.instances.parse_results`.
        workers: processes; changes no number.
        progress: told how far the work is.

    Raises:
        UserError: see `hqsam_metrics.ap.instances`.
    """
    from hqsam_metrics.ap.detection import score_detections
    from hqsam_metrics.ap.instances import check_countable, read_ground_truth, read_results
    from hqsam_metrics.scores import coco

    ratio = _measure(iou_type, dilation_ratio)
    truth = read_ground_truth(gt, progress=progress)
    check_countable(truth, boundary=ratio is not None)
    found = read_results(pred, truth, area_rule=area_rule, progress=progress)
    plan = coco.make_plan((ratio,), class_agnostic=class_agnostic, max_dets=max_dets, per_instance=False)
    scored = score_detections(truth, found, _with_mask_ap(plan), workers=workers, progress=progress)
    protocol = coco.protocol(
        class_agnostic=class_agnostic,
        max_dets=max_dets,
        area_rule=area_rule,
        iou_type=iou_type,
        dilation_ratio=ratio,
        ground_truth_digest=sha256_file(gt)[:16],
    )
    n = len(truth.images)
    tolerated = _warnings(n, "images", found.image, scored.dropped, scored.tables)
    warnings = [*truth.warnings, *score.copy_warnings(found), *tolerated]
    return Result(names.coco_metrics(scored.tables[0]), n, n, protocol, warnings)


def score_lvis_files(
    *,
    pred: Path,
    gt: Path,
    iou_type: IouType = "segm",
    dilation_ratio: float = 0.02,
    max_dets: int | None = None,
    area_rule: AreaRule = "mask",
    workers: int = 1,
    progress: Progress = silent,
) -> Result:
    """Scores a results file against LVIS annotations (arguments as `score_coco_files`; 300 detections an image)."""
    from hqsam_metrics.ap.detection import score_detections
    from hqsam_metrics.ap.instances import check_countable, read_ground_truth, read_results
    from hqsam_metrics.scores import lvis

    ratio = _measure(iou_type, dilation_ratio)
    truth = read_ground_truth(gt, lvis=True, progress=progress)
    check_countable(truth, boundary=ratio is not None)
    found = read_results(pred, truth, area_rule=area_rule, progress=progress)
    plan = lvis.make_plan((ratio,), max_dets=max_dets, per_instance=False)
    scored = score_detections(truth, found, _with_mask_ap(plan), workers=workers, progress=progress)
    protocol = lvis.protocol(
        max_dets=max_dets,
        area_rule=area_rule,
        iou_type=iou_type,
        dilation_ratio=ratio,
        ground_truth_digest=sha256_file(gt)[:16],
    )
    assert truth.federation is not None
    metrics = names.lvis_metrics(scored.tables[0], truth.federation, max_dets or lvis.MAX_DETS)
    n = len(truth.images)
    tolerated = _warnings(n, "images", found.image, scored.dropped, scored.tables)
    warnings = [*truth.warnings, *score.copy_warnings(found), *tolerated]
    return Result(metrics, n, n, protocol, warnings)


def score_ytvis_files(
    *,
    pred: Path,
    gt: Path,
    iou_type: IouType = "segm",
    class_agnostic: bool = False,
    workers: int = 1,
    progress: Progress = silent,
) -> Result:
    """Scores a results file in YouTube-VIS format: tube mask AP, or tube boundary AP at the protocol's ratio 0.02."""
    from hqsam_metrics.ap.tubes import DILATION_RATIO, score_tubes
    from hqsam_metrics.ap.tubes_io import check_countable, length_warnings, read_tube_results, read_ytvis
    from hqsam_metrics.scores import ytvis

    progress(0, 0, "reading ground truth")
    truth = read_ytvis(gt)
    check_countable(truth)
    progress(0, 0, "reading results")
    found = read_tube_results(pred, truth)
    boundary = iou_type == "boundary"
    scored = score_tubes(
        truth, found, boundary=boundary, class_agnostic=class_agnostic, workers=workers, progress=progress
    )
    protocol = ytvis.protocol(
        class_agnostic=class_agnostic,
        iou_type=iou_type,
        dilation_ratio=DILATION_RATIO if boundary else None,
        ground_truth_digest=sha256_file(gt)[:16],
    )
    n = len(truth.video_ids)
    tolerated = _warnings(n, "videos", found.video, scored.dropped, scored.tables[::-1])
    warnings = [*truth.warnings, *length_warnings(truth, found), *tolerated]
    return Result(names.coco_metrics(scored.tables[-1]), n, n, protocol, warnings)


def score_davis_folders(
    *, pred: Path, gt: Path, split: str = "val", workers: int = 1, progress: Progress = silent
) -> Result:
    """Scores a DAVIS results folder: `<pred>/<sequence>/<frame>.png` against the DAVIS folder `gt`."""
    from hqsam_metrics.davis import check_objects, find_sequences, global_metrics, per_object, score_folders
    from hqsam_metrics.scores import davis

    sequences = find_sequences(pred, gt, split)
    scores = score_folders(sequences, workers=workers, progress=progress)
    check_objects(scores, gt)
    digest = _folder_digest(path for one in sequences for path in one.target)
    protocol = davis.protocol(split=split, ground_truth_digest=digest)
    rows = per_object(scores)
    return Result(dict(global_metrics(scores)), len(rows), len(rows), protocol, [], {"per_object": rows})


def _folder_digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
