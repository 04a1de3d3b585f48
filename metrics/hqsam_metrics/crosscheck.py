"""Scoring a sample of a set twice: by this package and by the reference program.

Nobody has to trust a fast evaluator: on the first images of the user's own files, pycocotools' COCOeval (with the
original boundary algorithm) or lvis-api must give the same numbers.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.json_list import iter_list, read_json
from hqsam_metrics.ap.options import AreaRule, IouType
from hqsam_metrics.scores.coco import score_coco_files
from hqsam_metrics.scores.lvis import score_lvis_files

TOLERANCE = 1e-9
Stats = dict[str, float | None]


def sample_files(pred: Path, gt: Path, folder: Path, images: int) -> tuple[Path, Path]:
    """Writes annotations and results of the first `images` images (by id) and returns both files.

    Annotations are numbered from 1: the reference programs take a match with the id 0 for none.
    """
    truth = read_json(gt)
    keep = set(sorted(image["id"] for image in truth["images"])[:images])
    some = truth | {
        "images": [image for image in truth["images"] if image["id"] in keep],
        "annotations": [
            row | {"id": number}
            for number, row in enumerate((r for r in truth["annotations"] if r["image_id"] in keep), start=1)
        ],
    }
    rows = [row for block in iter_list(pred) for row in block if row["image_id"] in keep]
    files = folder / "results.json", folder / "annotations.json"
    for path, content in zip(files, (rows, some), strict=True):
        path.write_text(json.dumps(content))
    return files


def largest_difference(ours: Stats, theirs: dict[str, float]) -> float:
    """Returns the largest difference over the names that both have; None and -1 both mean undefined."""
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise ValueError("no number in common")
    pairs = [(-1.0 if ours[name] is None else float(ours[name] or 0.0), theirs[name]) for name in shared]
    return max(math.inf if math.isnan(b) else abs(a - b) for a, b in pairs)


def check_coco(
    *, pred: Path, gt: Path, iou_type: IouType, dilation_ratio: float, class_agnostic: bool, images: int = 200
) -> str:
    """Compares with COCOeval on the first images.

    Returns:
        One sentence for the user.

    Raises:
        UserError: the numbers differ by more than 1e-9.
    """
    from hqsam_metrics.reference import coco_reference

    ratio = dilation_ratio if iou_type == "boundary" else None

    def theirs(some: Path, truth: Path) -> dict[str, float]:
        rows = json.loads(some.read_text())
        return coco_reference(truth, rows, dilation_ratio=ratio, class_agnostic=class_agnostic)

    def ours(some: Path, truth: Path) -> Stats:
        named: dict[str, Any] = {"iou_type": iou_type, "dilation_ratio": dilation_ratio}
        return score_coco_files(pred=some, gt=truth, class_agnostic=class_agnostic, **named).metrics

    return _compare(pred, gt, images, "COCOeval", ours, theirs)


def check_lvis(*, pred: Path, gt: Path, images: int = 200) -> str:
    """Compares the mask AP with lvis-api on the first images (see `check_coco`)."""
    from hqsam_metrics.reference import lvis_reference

    def theirs(some: Path, truth: Path) -> dict[str, float]:
        return lvis_reference(truth, json.loads(some.read_text()))

    def ours(some: Path, truth: Path) -> Stats:
        return score_lvis_files(pred=some, gt=truth).metrics

    return _compare(pred, gt, images, "lvis-api", ours, theirs, "mask AP and AR")


def by_default(max_dets: int | None, area_rule: AreaRule) -> str:
    """Returns what a cross-check did not check: both programs run by the protocol's own rules."""
    own = [*(["--max-dets"] if max_dets is not None else []), *(["--area-rule"] if area_rule != "mask" else [])]
    return f"; without {' and '.join(own)}, which the reference program was not given" if own else ""


def _compare(
    pred: Path, gt: Path, images: int, program: str,
    ours: Callable[[Path, Path], Stats], theirs: Callable[[Path, Path], dict[str, float]], what: str = "numbers",
) -> str:  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        files = sample_files(pred, gt, Path(folder), images)
        if len(json.loads(files[0].read_text())) == 0:
            return f"cross-check: no results on the first {images} images, nothing to compare"
        difference = largest_difference(ours(*files), theirs(*files))
    if difference > TOLERANCE:
        raise UserError(
            f"{pred}: on the first {images} images {program} gives other numbers (by {difference:.3g});"
            " do not use them: please report this with the files"
        )
    return f"cross-check: {program} gives the same {what} on the first {images} images (within {TOLERANCE})"
