"""Result files of COCO and LVIS as columns, checked on the way in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.json_stream import iterate_results
from hqsam_base.progress import Progress, silent
from hqsam_base.rle import segmentation_string
from hqsam_base.runs import Int, RleBatch, RleError
from hqsam_metrics.ap.columns import (
    finite,
    known_places,
    numbers,
    read_ids,
)
from hqsam_metrics.ap.instances import Float, GroundTruth
from hqsam_metrics.ap.options import AreaRule
from hqsam_metrics.ap.scan import Columns, scan_results


@dataclass(frozen=True)
class Results:
    """Detections in the order of the file, one row each.

    Attributes:
        name: the file, for messages.
        image: int64 [n], place in the ground truth's images.
        category: int64 [n], place in its categories, -1 for an unknown one.
        score: float64 [n].
        area: float64 [n], given area (`bbox` rule), or None: count the mask's pixels.
        masks: run-length codes [n].
        row: int64 [n], number in the file, for messages.
        category_id: int64 [n], as the file has it, for messages; None where ids are names.
    """

    name: str
    image: Int
    category: Int
    score: Float
    area: Float | None
    masks: RleBatch
    row: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    category_id: Int | None = None

    def __len__(self) -> int:
        """Returns the number of detections."""
        return len(self.score)


def parse_results(
    blocks: Iterable[list[Any]],
    gt: GroundTruth,
    name: str,
    *,
    area_rule: AreaRule = "mask",
    progress: Progress = silent,
) -> Results:
    """Reads detections.

    Args:
        blocks: lists of result objects `{image_id, category_id, segmentation, score}`.
        gt: the ground truth they belong to.
        name: file name for messages.
        area_rule: "mask": the area of a detection is its pixel count, whatever else the file says.
            "bbox": as the official loader does, width x height of `bbox` when the first result has
            one.
        progress: told how far the work is.

    Raises:
        UserError: unknown image ids, scores that are no finite numbers, masks of another size,
            missing keys.
    """
    parts: list[Results] = []
    boxed: bool | None = None
    first = 0
    for block in blocks:
        if boxed is None and block:
            boxed = (
                area_rule == "bbox" and isinstance(block[0], Mapping) and bool(block[0].get("bbox"))
            )
        parts.append(_parse_block(block, gt, name, first, bool(boxed)))
        first += len(block)
        progress(first, 0, "reading results")
    return join_results(parts, name)


def join_results(parts: Sequence[Results], name: str) -> Results:
    """Joins blocks of one result file."""
    if not parts:
        empty = np.zeros(0, np.int64)
        return Results(name, empty, empty, np.zeros(0), None, RleBatch.of([], [], []))
    areas = [p.area for p in parts if p.area is not None]
    area = np.concatenate(areas) if len(areas) == len(parts) else None
    image, category = (
        np.concatenate([getattr(p, key) for p in parts]) for key in ("image", "category")
    )
    score = np.concatenate([p.score for p in parts])
    row = np.concatenate([p.row for p in parts])
    given = [p.category_id for p in parts if p.category_id is not None]
    return Results(
        name,
        image,
        category,
        score,
        area,
        RleBatch.concat([p.masks for p in parts]),
        row,
        np.concatenate(given) if len(given) == len(parts) else None,
    )


def _parse_block(rows: list[Any], gt: GroundTruth, name: str, first: int, boxed: bool) -> Results:
    image = known_places(rows, "image_id", gt.images.table, name, gt.name, first)
    classes = read_ids(rows, "category_id", name, "result", first)
    category = gt.categories.place(classes)
    score = numbers(rows, "score", name, "result", first)
    masks = _result_masks(rows, gt, image, name, first)
    area = (
        np.array([_box_area(row, name, first + i) for i, row in enumerate(rows)]) if boxed else None
    )
    row = np.arange(first, first + len(rows))
    numbered = classes if isinstance(classes, np.ndarray) else None
    return Results(name, image, category, score, area, masks, row, numbered)


def _box_area(row: Mapping[str, Any], name: str, at: int) -> float:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(
            f"{name}: result {at}: `bbox` must be [x, y, width, height], as the first result has "
            f"one"
        )
    width, height = (finite(side, f"{name}: result {at}: a side of `bbox`") for side in box[2:])
    return width * height


def _result_masks(rows: list[Any], gt: GroundTruth, image: Int, name: str, first: int) -> RleBatch:
    heights, widths = gt.images.heights[image], gt.images.widths[image]
    try:
        codes = [row["segmentation"] for row in rows]
        sizes = np.array([code["size"] for code in codes], np.int64).reshape(-1, 2)
        strings = [code["counts"].encode("ascii") for code in codes]
        if (sizes[:, 0] == heights).all() and (sizes[:, 1] == widths).all():
            return RleBatch.of(strings, heights, widths)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        pass
    strings = []
    for i, row in enumerate(rows):
        try:
            strings.append(
                segmentation_string(row.get("segmentation"), int(heights[i]), int(widths[i]))
            )
        except RleError as error:
            raise UserError(f"{name}: result {first + i}: {error.reason}") from None
    return RleBatch.of(strings, heights, widths)


def read_results(
    path: Path, gt: GroundTruth, *, area_rule: AreaRule = "mask", progress: Progress = silent
) -> Results:
    """Reads a result file (see `parse_results`); a large one is read block by block."""
    if area_rule == "mask" and gt.images.table.names is None and gt.categories.names is None:
        columns = scan_results(path, progress)
        found = None if columns is None else _of_columns(columns, gt, str(path))
        if found is not None:
            return found
    return parse_results(
        iterate_results(path), gt, str(path), area_rule=area_rule, progress=progress
    )


def _of_columns(columns: Columns, gt: GroundTruth, name: str) -> Results | None:
    """Returns results that were read as columns; None where one does not fit the ground truth: the plain reader says why."""
    image_id, category_id, heights, widths = columns.fields.T
    image = gt.images.place(image_id)
    if (image < 0).any() or (gt.images.heights[image] != heights).any():
        return None
    if (gt.images.widths[image] != widths).any():
        return None
    masks = RleBatch(columns.data, columns.offsets, heights.copy(), widths.copy())
    category, rows = gt.categories.place(category_id), np.arange(len(image))
    return Results(name, image, category, columns.score, None, masks, rows, category_id)
