"""COCO and LVIS annotation files and result files as columns, checked on the way in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.json_list import iter_list, read_json
from hqsam_base.progress import Progress, silent
from hqsam_metrics.ap.columns import (
    finite,
    flag,
    id_list,
    integers,
    numbers,
    place_of,
    rows_of,
    unique,
    zero_id_warning,
)
from hqsam_metrics.ap.options import AreaRule
from hqsam_metrics.masks.iou import segmentation_string
from hqsam_metrics.masks.rle import Int, RleBatch, RleError

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Images:
    """The images of a set, by rising id: ids, heights, widths, int64 [i]."""

    ids: Int
    heights: Int
    widths: Int

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.ids)

    def place(self, ids: Int) -> Int:
        """Returns the place of each id, -1 for an unknown one: int64, shape of `ids`."""
        return place_of(self.ids, ids)


@dataclass(frozen=True)
class Federation:
    """What LVIS says about the categories of an image, as image_place * K + category_place, sorted int64.

    Attributes:
        checked: pairs for which the image was searched (ground truth there, or named as negative).
        not_exhaustive: pairs whose annotation is known to be incomplete.
        frequency: `r`, `c` or `f` of each category [K].
    """

    checked: Int
    not_exhaustive: Int
    frequency: NDArray[np.str_]


@dataclass(frozen=True)
class GroundTruth:
    """Annotations in the order of the file, one row each.

    Attributes:
        name: the file, for messages.
        images: the images.
        category_ids: int64 [K], rising.
        image: int64 [g], place in `images`.
        category: int64 [g], place in `category_ids`.
        area: float64 [g], the annotation's own field.
        crowd: bool [g].
        ignore: bool [g].
        ids: int64 [g], annotation ids.
        masks: run-length codes [g].
        federation: LVIS only.
        warnings: what the official loader tolerates, counted.
    """

    name: str
    images: Images
    category_ids: Int
    image: Int
    category: Int
    area: Float
    crowd: Bool
    ignore: Bool
    ids: Int
    masks: RleBatch
    federation: Federation | None = None
    warnings: tuple[str, ...] = ()


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
    """

    name: str
    image: Int
    category: Int
    score: Float
    area: Float | None
    masks: RleBatch
    row: Int = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        """Returns the number of detections."""
        return len(self.score)


def read_images(content: Mapping[str, Any], name: str) -> Images:
    """Reads the list `images` (ids unique, sizes positive)."""
    rows = rows_of(content, "images", name)
    if not rows:
        raise UserError(f"{name}: `images` is empty; there is nothing to score")
    ids = integers(rows, "id", name, "image")
    unique(ids, name, "image id")
    heights, widths = (integers(rows, key, name, "image") for key in ("height", "width"))
    bad = np.flatnonzero((heights < 1) | (widths < 1))
    if len(bad):
        raise UserError(f"{name}: image id {ids[bad[0]]} has no positive `height` and `width`")
    order = np.argsort(ids)
    return Images(ids[order], heights[order], widths[order])


def parse_ground_truth(content: Any, name: str, *, lvis: bool = False, progress: Progress = silent) -> GroundTruth:
    """Reads a COCO or LVIS annotation file.

    Args:
        content: the parsed JSON.
        name: file name for messages.
        lvis: read the federated keys too.
        progress: told how far the work is.

    Raises:
        UserError: duplicate ids, malformed masks, missing keys, wrong sizes.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{name}: must be a JSON object with `images`, `annotations`, `categories`")
    images = read_images(content, name)
    category_ids = integers(rows_of(content, "categories", name), "id", name, "category")
    unique(category_ids, name, "category id")
    category_ids = np.sort(category_ids)
    rows = rows_of(content, "annotations", name)
    ids = integers(rows, "id", name, "annotation")
    unique(ids, name, "annotation id")
    image = images.place(integers(rows, "image_id", name, "annotation"))
    category = place_of(category_ids, integers(rows, "category_id", name, "annotation"))
    keep = np.flatnonzero((image >= 0) & (category >= 0))
    warnings = _tolerated(ids, image, category)
    kept = [rows[i] for i in keep]
    marked = 0 if lvis else sum(bool(row.get("ignore")) for row in kept)
    if marked:
        warnings.append(f"{marked} annotations have `ignore`: pycocotools does not look at it, so they count here")
    masks = _gt_masks(kept, images, image[keep], name, progress)
    crowd = np.array([flag(row, "iscrowd", name) for row in kept], bool)
    ignore = np.array([flag(row, "ignore", name) for row in kept], bool) if lvis else crowd
    image, category, area = image[keep], category[keep], numbers(kept, "area", name, "annotation")
    # An LVIS annotation without area is none: it does not say that its category was looked for, either.
    real = area > 0
    return GroundTruth(
        name, images, category_ids, image, category, area, np.zeros_like(crowd) if lvis else crowd, ignore, ids[keep],
        masks, read_federation(content, images, category_ids, image[real], category[real], name) if lvis else None,
        tuple(warnings),
    )  # fmt: skip


def _tolerated(ids: Int, image: Int, category: Int) -> list[str]:
    out = zero_id_warning(ids)
    if (image < 0).any():
        out.append(f"{int((image < 0).sum())} annotations of images that are not in `images` were left out")
    if (category < 0).any():
        out.append(f"{int((category < 0).sum())} annotations of unknown categories were left out")
    return out


def _gt_masks(rows: Sequence[Any], images: Images, image: Int, name: str, progress: Progress) -> RleBatch:
    strings: list[bytes] = []
    heights, widths = images.heights[image], images.widths[image]
    sizes = np.stack([heights, widths], axis=1).tolist()
    for i, row in enumerate(rows):
        code = row.get("segmentation")
        if type(code) is dict and code.get("size") == sizes[i] and type(code.get("counts")) is str:
            strings.append(code["counts"].encode())
            continue
        try:
            strings.append(segmentation_string(code, *sizes[i]))
        except RleError as error:
            raise UserError(f"{name}: annotation id {row['id']}: {error.reason}") from None
        if i % 1024 == 1023:
            progress(i + 1, len(rows), "reading ground truth")
    return RleBatch.of(strings, heights, widths)


def read_federation(
    content: Mapping[str, Any], images: Images, category_ids: Int, image: Int, category: Int, name: str
) -> Federation:
    """Reads what LVIS adds: negative and not exhaustive categories of the images, frequencies of the categories."""
    n = len(category_ids)
    pairs: dict[str, Int] = {}
    rows = content["images"]
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        if any(key not in row for row in rows):
            raise UserError(f"{name}: an image has no list `{key}`; is this an LVIS file? (COCO: `hqsam score coco`)")
        lists = [id_list(row[key], f"{name}: image id {row['id']}: `{key}`") for row in rows]
        values = np.array([v for one in lists for v in one], np.int64)
        at = images.place(np.repeat(np.array([row["id"] for row in rows], np.int64), list(map(len, lists))))
        place = place_of(category_ids, values)
        pairs[key] = np.unique((at * n + place)[place >= 0])
    frequency = {row["id"]: str(row.get("frequency", "")) for row in content["categories"]}
    bad = [key for key, value in frequency.items() if value not in ("r", "c", "f")]
    if bad:
        raise UserError(f"{name}: category id {bad[0]} has no `frequency` r, c or f; is this an LVIS file?")
    checked = np.union1d(image * n + category, pairs["neg_category_ids"])
    order = np.array([frequency[int(i)] for i in category_ids])
    return Federation(checked, pairs["not_exhaustive_category_ids"], order)


def read_ground_truth(path: Path, *, lvis: bool = False, progress: Progress = silent) -> GroundTruth:
    """Reads an annotation file (see `parse_ground_truth`)."""
    progress(0, 0, "reading ground truth")
    return parse_ground_truth(read_json(path), str(path), lvis=lvis, progress=progress)


def parse_results(
    blocks: Iterable[list[Any]], gt: GroundTruth, name: str, *, area_rule: AreaRule = "mask",
    progress: Progress = silent,
) -> Results:  # fmt: skip
    """Reads detections.

    Args:
        blocks: lists of result objects `{image_id, category_id, segmentation, score}`.
        gt: the ground truth they belong to.
        name: file name for messages.
        area_rule: "mask": the area of a detection is its pixel count, whatever else the file says. "bbox": as the
            official loader does, width x height of `bbox` when the first result has one.
        progress: told how far the work is.

    Raises:
        UserError: unknown image ids, scores that are no finite numbers, masks of another size, missing keys.
    """
    parts: list[Results] = []
    boxed: bool | None = None
    first = 0
    for block in blocks:
        if boxed is None and block:
            boxed = area_rule == "bbox" and isinstance(block[0], Mapping) and bool(block[0].get("bbox"))
        parts.append(_parse_block(block, gt, name, first, bool(boxed)))
        first += len(block)
        progress(first, 0, "reading results")
    return join_results(parts, name)


def join_results(parts: Sequence[Results], name: str) -> Results:
    """Joins blocks of one result file."""
    if not parts:
        empty = np.zeros(0, np.int64)
        return Results(name, empty, empty, np.zeros(0), None, RleBatch.of([], [], []))
    area = None if any(p.area is None for p in parts) else np.concatenate([_area(p) for p in parts])
    image, category = (np.concatenate([getattr(p, key) for p in parts]) for key in ("image", "category"))
    score = np.concatenate([p.score for p in parts])
    row = np.concatenate([p.row for p in parts])
    return Results(name, image, category, score, area, RleBatch.concat([p.masks for p in parts]), row)


def _area(part: Results) -> Float:
    assert part.area is not None
    return part.area


def _parse_block(rows: list[Any], gt: GroundTruth, name: str, first: int, boxed: bool) -> Results:
    ids = integers(rows, "image_id", name, "result", first)
    image = gt.images.place(ids)
    unknown = np.flatnonzero(image < 0)
    if len(unknown):
        at = int(unknown[0])
        raise UserError(
            f"{name}: result {first + at}: image_id {ids[at]} is not in {gt.name}"
            f" ({len(unknown)} such results); score it against the annotation file it was made for"
        )
    category = place_of(gt.category_ids, integers(rows, "category_id", name, "result", first))
    score = numbers(rows, "score", name, "result", first)
    masks = _result_masks(rows, gt, image, name, first)
    area = np.array([_box_area(row, name, first + i) for i, row in enumerate(rows)]) if boxed else None
    return Results(name, image, category, score, area, masks, np.arange(first, first + len(rows)))


def _box_area(row: Mapping[str, Any], name: str, at: int) -> float:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{name}: result {at}: `bbox` must be [x, y, width, height], as the first result has one")
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
            strings.append(segmentation_string(row.get("segmentation"), int(heights[i]), int(widths[i])))
        except RleError as error:
            raise UserError(f"{name}: result {first + i}: {error.reason}") from None
    return RleBatch.of(strings, heights, widths)


def read_results(path: Path, gt: GroundTruth, *, area_rule: AreaRule = "mask", progress: Progress = silent) -> Results:
    """Reads a result file (see `parse_results`); a large one is read block by block."""
    return parse_results(iter_list(path), gt, str(path), area_rule=area_rule, progress=progress)
