"""What the metrics of instance AP share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.json_stream import read_json
from hqsam_base.rle import decode
from hqsam_base.runs import Int, RleBatch
from hqsam_metrics.ap import category_ids, errors
from hqsam_metrics.ap.columns import IdTable
from hqsam_metrics.ap.detection import BestMatches, Measure, Plan, Scored
from hqsam_metrics.ap.instances import GroundTruth, check_countable, read_ground_truth
from hqsam_metrics.ap.options import DetectionOptions, IouType
from hqsam_metrics.ap.resample import Matches, matches_of
from hqsam_metrics.ap.results import Results
from hqsam_metrics.base import Kept, Outcome, Units, View, check_ratio
from hqsam_metrics.calibration import reliability

if TYPE_CHECKING:
    from hqsam_metrics.ap.accumulate import Tables
    from hqsam_metrics.benchmark_data import Predictions

EMPTY_MASK_RULE = "a detection without a pixel is a false positive; 0/0 is 0"


def ground_truth(data: Predictions, *, lvis: bool) -> GroundTruth:
    """Reads the benchmark's `gt.json` and checks it against its images."""
    gt = read_ground_truth(data.benchmark.ground_truth, lvis=lvis)
    check_countable(gt, boundary=False)
    from hqsam_metrics.benchmark_data import integers

    missing = np.setdiff1d(integers(data.benchmark.images, "image_id"), gt.images.ids)
    if len(missing):
        raise UserError(
            f"{gt.name}: has no image id {missing[0]}, which images.parquet lists; index again"
        )
    return gt


def results(
    data: Predictions, gt: GroundTruth, options: DetectionOptions, *, class_agnostic: bool = False
) -> Results:
    """Returns the predictions as detections of `gt`'s images and categories, in the order of the prompt ids."""
    from hqsam_metrics.benchmark_data import integers

    image = gt.images.place(integers(data.benchmark.images, "image_id")[data.image])
    given = integers(data.prompts, "category_id", default=np.iinfo(np.int64).min)
    category = np.zeros(len(given), np.int64) if class_agnostic else gt.categories.place(given)
    masks = RleBatch(
        data.masks.data, data.masks.offsets, gt.images.heights[image], gt.images.widths[image]
    )
    wrong = np.flatnonzero(
        (masks.heights != data.masks.heights) | (masks.widths != data.masks.widths)
    )
    if len(wrong):
        i = int(wrong[0])
        raise UserError(
            f"{gt.name}: image {data.prompts['key'][i]} is {masks.heights[i]} x {masks.widths[i]} "
            f"there,"
            f" {data.masks.heights[i]} x {data.masks.widths[i]} in images.parquet (height x "
            f"width); index again"
        )
    score = data.scores(options.score_rule)
    of_file = None if class_agnostic else given
    row = np.arange(len(given))
    return Results(str(data.folder), image, category, score, None, masks, row, of_file)


def first_keys(data: Predictions) -> dict[int, str]:
    """Returns the image key of each image id."""
    from hqsam_metrics.benchmark_data import integers, strings

    ids = integers(data.benchmark.images, "image_id").tolist()
    return dict(zip(ids, map(str, strings(data.benchmark.images, "key")), strict=True))


def units(data: Predictions, gt: GroundTruth, best: BestMatches | None) -> Units:
    """Returns one row for each ground truth that is no crowd: its best detection."""
    from hqsam_metrics.benchmark_data import strings

    assert best is not None
    keys = first_keys(data)
    key = [keys[int(i)] for i in gt.images.ids[gt.image[best.gt]]]
    # What is resampled: the video where the image has one, else the image.
    images = data.benchmark.images
    videos = dict(zip(strings(images, "key"), strings(images, "video"), strict=True))
    cluster = [videos.get(k) or k for k in key]
    return Units(
        key, cluster, [str(i) for i in gt.ids[best.gt]], {"iou": best.iou, "biou": best.biou}
    )


def outcome(
    metrics: dict[str, float | None],
    data: Predictions,
    gt: GroundTruth,
    found: Results,
    scored: Scored,
    plan: Plan,
    suffixes: Sequence[str],
    *,
    stratum: Int | None = None,
) -> Outcome:
    """Assembles the outcome with its warnings and matches.

    Args:
        metrics: values by name.
        data: the predictions.
        gt: the ground truth.
        found: the predictions as detections.
        scored: what scoring gave.
        plan: by which they were scored.
        suffixes: behind `AP` for each boundary measure.
        stratum: int64 [I], see `hqsam_metrics.ap.resample.Truth`.
    """
    warnings = [*gt.warnings, *dropped_warnings(scored.dropped), *ap_warnings(metrics, suffixes)]
    warnings += category_warnings(gt, found)
    n = len(gt.images)
    matches = _matches(data, gt, scored, plan, suffixes, stratum)
    return Outcome(metrics, n, n, units(data, gt, scored.best), warnings, matches)


def _matches(
    data: Predictions,
    gt: GroundTruth,
    scored: Scored,
    plan: Plan,
    suffixes: Sequence[str],
    stratum: Int | None,
) -> Matches:
    from hqsam_metrics.benchmark_data import integers, strings

    images = data.benchmark.images
    videos = dict(zip(integers(images, "image_id").tolist(), strings(images, "video"), strict=True))
    names = [videos.get(int(i)) or f"image {i}" for i in gt.images.ids]
    partials = {
        f"AP{suffix}": part for suffix, part in zip(("", *suffixes), scored.partials, strict=True)
    }
    return matches_of(
        partials,
        plan.measures[0].bins,
        limit=plan.limits[-1],
        ids=gt.images.ids,
        stratum=stratum,
        cluster=np.unique(names, return_inverse=True)[1].reshape(-1),
    )


def diagnosis(data: Predictions, gt: GroundTruth, scored: Scored, plan: Plan) -> dict[str, Any]:
    """Returns what is wrong with the masks of a set whose plan has `errors`.

    Returns:
        ``errors``: `hqsam_metrics.ap.errors.split` of ``mask`` and ``boundary`` IoU;
        ``classes``: name, id (not of a class-agnostic set), objects, AP and AP_B of each class
        that has objects;
        ``precision``: of ``mask`` and ``boundary`` IoU at 0.5 and 0.75, at the 101 recalls of AP,
        the mean over classes;
        ``calibration``: `hqsam_metrics.calibration.reliability` of the detections that count.
    """
    n = 1 if plan.class_agnostic else len(gt.category_ids)
    kinds = dict(zip(("mask", "boundary"), scored.errors, strict=False))
    found = scored.errors[0]
    counts = np.bincount(found.object_category[found.object_counts], minlength=n)
    ap = [table.per_category() for table in scored.tables[:2]]
    classes = [
        {
            "name": "every class" if plan.class_agnostic else gt.category_names[k],
            **({} if plan.class_agnostic else {"id": int(gt.category_ids[k])}),
            "objects": int(counts[k]),
            **{name: float(values[k]) for name, values in zip(("AP", "AP_B"), ap, strict=False)},
        }
        for k in np.flatnonzero(counts)
    ]
    counted = found.counted
    return {
        "errors": {name: errors.split(one, n) for name, one in kinds.items()},
        "classes": classes,
        "precision": {
            name: {f"{iou:.2f}": table.curve(iou).tolist() for iou in (0.5, 0.75)}
            for name, table in zip(kinds, scored.tables, strict=False)
            if len(counts.nonzero()[0])
        },
        "calibration": reliability(data.iou_pred[found.row[counted]], found.iou[counted]),
    }


def dropped_warnings(dropped: dict[str, int]) -> list[str]:
    """Says how many detections were left out by the evaluator's own rules."""
    return [f"{count} detections {why} do not count" for why, count in dropped.items()]


def copy_warnings(
    columns: tuple[Int, Int, NDArray[np.float64]], code: Callable[[int], bytes]
) -> list[str]:
    """Warns of detections that are in the file more than once, as after a padded distributed evaluation.

    Args:
        columns: image or video, category and score of each detection.
        code: gives the mask of a detection.
    """
    order = np.lexsort(columns[::-1])
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        same &= np.diff(column[order]) == 0
    pairs = zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True)
    copies = sum(code(a) == code(b) for a, b in pairs)
    text = (
        "detections are copies of another of the same image or video, category, score and mask; they "
        "count like any other"
    )
    return [f"{copies} {text}"] if copies else []


def result_warnings(gt: GroundTruth, found: Results, *, class_agnostic: bool = False) -> list[str]:
    """Warns of copies, and of category ids that are counted otherwise than the annotations'."""
    columns = found.image, found.category, found.score
    return [
        *copy_warnings(columns, found.masks.string),
        *([] if class_agnostic else category_warnings(gt, found)),
    ]


def category_warnings(gt: GroundTruth, found: Results) -> list[str]:
    """Warns of detections whose category ids are counted otherwise than the annotations'; see `category_ids`."""
    annotated, detected = (gt.image, gt.category), (found.image, found.category)
    return category_ids.of_detections(gt.categories, annotated, detected, found.category_id)


def kept(gt: GroundTruth, dt: Results, scored: Scored, plan: Plan, annotations: Path) -> Kept:
    """Returns what a comparison of two result files needs of one (`hqsam_metrics.against`).

    Args:
        gt: the ground truth.
        dt: the results.
        scored: with the best matches.
        plan: by which they were scored; its first measure is the AP that is compared.
        annotations: the file of `gt`, for the names of its pictures.
    """
    assert scored.best is not None
    best, places = scored.best, gt.image[scored.best.gt]
    clusters = [str(place) for place in places.tolist()]
    ids = [str(i) for i in gt.ids[best.gt]]
    values = {"iou": best.iou} | ({"biou": best.biou} if plan.ratios else {})

    @functools.cache
    def names() -> list[str]:
        rows = read_json(annotations)["images"]
        return [picture_name(rows[n]) for n in IdTable.of(rows, gt.name, "image")[1]]

    def views(row: int) -> list[View]:
        mine, place = int(best.dt[row]), int(places[row])
        size = {"height": int(gt.images.heights[place]), "width": int(gt.images.widths[place])}
        truth = decode(gt.masks.string(int(best.gt[row])), **size)
        found = decode(dt.masks.string(mine), **size) if mine >= 0 else np.zeros_like(truth)
        return [View(names()[place], truth, found)]

    matches = matches_of(
        {"AP": scored.partials[0]},
        plan.measures[0].bins,
        limit=plan.limits[-1],
        ids=gt.images.ids,
        cluster=np.arange(len(gt.images)),
    )
    return Kept(Units(clusters, clusters, ids, values), views, matches)


def picture_name(image: Mapping[str, Any]) -> str:
    """Returns the file name of an image's record; LVIS has an address in its place."""
    return str(image.get("file_name") or str(image.get("coco_url", "")).rpartition("/")[2])


def measure_of(iou_type: IouType, dilation_ratio: float) -> float | None:
    """Returns the dilation ratio of boundary AP, None for mask AP.

    Raises:
        UserError: the ratio is not between 0 and 1.
    """
    check_ratio(dilation_ratio, "--dilation-ratio")
    return dilation_ratio if iou_type == "boundary" else None


def with_mask_ap(plan: Plan) -> Plan:
    """Adds mask AP over all sizes behind boundary AP, for the comparison of the two: the IoUs are computed anyway."""
    first = plan.measures[0]
    return (
        plan
        if first.ratio is None
        else replace(plan, measures=(first, Measure(None, first.bins[:1])))
    )


def file_warnings(
    n_units: int, unit: str, used: Int, dropped: dict[str, int], tables: tuple[Tables, ...]
) -> list[str]:
    """Returns what the protocols tolerate: units without a detection, detections that do not count, an AP_B above AP.

    Args:
        n_units: images or videos of the ground truth.
        unit: their name.
        used: place of the image or video of each detection.
        dropped: why and how many detections do not count.
        tables: of the AP that was asked for and, when that is of boundaries, of mask AP.
    """
    out = dropped_warnings(dropped)
    without = n_units - len(np.unique(used))
    if without:
        out.append(
            f"{without} of {n_units} {unit} have no detection: their objects count as missed"
        )
    if len(tables) > 1:
        out += ap_warnings({"AP": tables[1].ap(), "AP_B": tables[0].ap()}, ["_B"])
    return out


def ap_warnings(metrics: dict[str, Any], suffixes: Sequence[str]) -> list[str]:
    """Warns of an AP of boundaries above that of masks (possible, but rare: often a sign of swapped files)."""
    out = []
    for suffix in suffixes:
        low, high = metrics.get("AP"), metrics.get(f"AP{suffix}")
        if low is not None and high is not None and high > low + 1e-12:
            out.append(f"AP{suffix} ({high:.4f}) is above AP ({low:.4f})")
    return out
