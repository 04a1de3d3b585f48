"""Scoring a sample of a set twice: by this package and by the reference program.

Nobody has to trust a fast evaluator: on the first images of the user's own files, pycocotools'
COCOeval (with the original boundary algorithm) or lvis-api must give the same numbers.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.ids import flag, plain_id, whole_number
from hqsam_base.json_stream import iterate_results, read_json
from hqsam_base.rle import area, from_segmentation
from hqsam_metrics.ap.options import AreaRule, IouType
from hqsam_metrics.scores.coco import score_coco_files
from hqsam_metrics.scores.lvis import score_lvis_files

TOLERANCE = 1e-9
Stats = dict[str, float | None]


def sample_files(pred: Path, gt: Path, folder: Path, images: int) -> tuple[Path, Path]:
    """Writes annotations and results of the first `images` images (by id) and returns both files.

    The reference programs stop at what home-made files lack or write otherwise; that is put right
    here: areas and
    `iscrowd`, the spelling of ids, masks that are neither compressed nor plain polygons.
    Annotations are numbered from 1: the programs take a match with the id 0 for none.
    """
    truth = read_json(gt)
    ids = [plain_id(image["id"]) for image in truth["images"]]
    spelled = str if any(isinstance(one, str) for one in ids) else int
    keep = set(sorted(ids, key=spelled)[:images])
    sizes = {
        one: (whole_number(image["height"]), whole_number(image["width"]))
        for one, image in zip(ids, truth["images"], strict=True)
    }

    def written(row: dict[str, Any]) -> dict[str, Any]:
        image = plain_id(row["image_id"])
        out = row | {"image_id": spelled(image), "category_id": plain_id(row["category_id"])}
        # As the programs read it: polygons of three points or more stay as they are.
        mask, (height, width) = row["segmentation"], sizes[image]
        if not isinstance(mask, list) or not all(len(p) >= 6 and len(p) % 2 == 0 for p in mask):
            counts = from_segmentation(mask, height=height, width=width)
            mask = {"size": [height, width], "counts": counts}
        return out | {"segmentation": mask}

    some = [
        row
        for row in truth["annotations"]
        if plain_id(row["image_id"]) in keep and row["segmentation"] != []
    ]
    annotations = [written(row) | {"id": number} for number, row in enumerate(some, start=1)]
    for row in annotations:
        row["iscrowd"] = int(flag(row.get("iscrowd")))
        if row.get("area") is None:
            height, width = sizes[plain_id(row["image_id"])]
            counts = from_segmentation(row["segmentation"], height=height, width=width)
            row["area"] = area(counts, height=height, width=width)
    content = truth | {
        "images": [
            image | {"id": spelled(one), "height": sizes[one][0], "width": sizes[one][1]}
            for one, image in zip(ids, truth["images"], strict=True)
            if one in keep
        ],
        "annotations": annotations,
        "categories": [row | {"id": plain_id(row["id"])} for row in truth["categories"]],
    }
    rows = [
        written(row)
        for block in iterate_results(pred)
        for row in block
        if plain_id(row["image_id"]) in keep
    ]
    for name, value in (("results.json", rows), ("annotations.json", content)):
        (folder / name).write_text(json.dumps(value))
    return folder / "results.json", folder / "annotations.json"


def largest_difference(ours: Stats, theirs: dict[str, float]) -> float:
    """Returns the largest difference over the names that both have; None and -1 both mean undefined."""
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise ValueError("no number in common")
    pairs = [
        (-1.0 if ours[name] is None else float(ours[name] or 0.0), theirs[name]) for name in shared
    ]
    return max(math.inf if math.isnan(b) else abs(a - b) for a, b in pairs)


def check_coco(
    *,
    pred: Path,
    gt: Path,
    iou_type: IouType,
    dilation_ratio: float,
    class_agnostic: bool = False,
    max_dets: int | None = None,
    area_rule: AreaRule = "mask",
    images: int = 200,
) -> str:
    """Compares with COCOeval on the first images, by the rules and the measure in use.

    For boundaries it is COCOeval with the rules of the Boundary IoU API: its bands, computed by the
    original algorithm on whole pictures, the smaller of mask and boundary IoU, and annotations with
    `ignore` ignored.

    Args:
        pred: results.
        gt: annotations.
        iou_type: see `hqsam_metrics.scores.coco.score_coco_files`, as the rest.
        dilation_ratio: width of the boundary band.
        class_agnostic: match whatever the category.
        max_dets: detections that count.
        area_rule: how the area of detections is found.
        images: how many.

    Returns:
        One sentence for the user.

    Raises:
        UserError: the numbers differ by more than 1e-9.
    """
    from hqsam_metrics.reference import coco_reference
    from hqsam_metrics.scores.coco import limits

    ratio = dilation_ratio if iou_type == "boundary" else None
    shared: dict[str, Any] = {"class_agnostic": class_agnostic, "area_rule": area_rule}

    def theirs(some: Path, truth: Path) -> dict[str, float]:
        rows = json.loads(some.read_text())
        return coco_reference(truth, rows, dilation_ratio=ratio, limits=limits(max_dets), **shared)

    def ours(some: Path, truth: Path) -> Stats:
        named: dict[str, Any] = {
            "iou_type": iou_type,
            "dilation_ratio": dilation_ratio,
            "max_dets": max_dets,
        }
        return score_coco_files(pred=some, gt=truth, **named, **shared).metrics

    return _compare(pred, gt, images, "COCOeval", ours, theirs)


def check_lvis(
    *,
    pred: Path,
    gt: Path,
    iou_type: IouType,
    dilation_ratio: float,
    max_dets: int | None = None,
    area_rule: AreaRule = "mask",
    images: int = 200,
) -> str:
    """Compares with lvis-api on the first images (see `check_coco`)."""
    from hqsam_metrics.reference import lvis_reference
    from hqsam_metrics.scores.lvis import MAX_DETS

    ratio = dilation_ratio if iou_type == "boundary" else None

    def theirs(some: Path, truth: Path) -> dict[str, float]:
        rows = json.loads(some.read_text())
        most = max_dets or MAX_DETS
        return lvis_reference(truth, rows, dilation_ratio=ratio, max_dets=most, area_rule=area_rule)

    def ours(some: Path, truth: Path) -> Stats:
        named: dict[str, Any] = {
            "iou_type": iou_type,
            "dilation_ratio": dilation_ratio,
            "max_dets": max_dets,
        }
        return score_lvis_files(pred=some, gt=truth, area_rule=area_rule, **named).metrics

    return _compare(pred, gt, images, "lvis-api", ours, theirs)


def _compare(
    pred: Path,
    gt: Path,
    images: int,
    program: str,
    ours: Callable[[Path, Path], Stats],
    theirs: Callable[[Path, Path], dict[str, float]],
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        files = sample_files(pred, gt, Path(folder), images)
        if len(json.loads(files[0].read_text())) == 0:
            return f"cross-check: no results on the first {images} images, nothing to compare"
        difference = largest_difference(ours(*files), theirs(*files))
    if difference > TOLERANCE:
        raise UserError(
            f"{pred}: on the first {images} images {program} gives other numbers (by "
            f"{difference:.3g});"
            " do not use them: please report this with the files"
        )
    return (
        f"cross-check: {program} gives the same numbers on the first {images} images (within "
        f"{TOLERANCE})"
    )
