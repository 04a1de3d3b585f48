"""COCO and LVIS annotation files as columns, checked on the way in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.json_stream import read_json
from hqsam_base.progress import Progress, silent
from hqsam_base.rle import segmentation_string
from hqsam_base.runs import Int, RleBatch, RleError, decode_runs
from hqsam_metrics.ap import category_ids
from hqsam_metrics.ap.columns import (
    Ids,
    IdTable,
    flag,
    id_list,
    integers,
    numbers,
    read_ids,
    rows_of,
    unique,
    zero_id_warning,
)

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
_FEDERATED = (
    "this is an LVIS file, whose annotations are federated: scored as COCO, right detections "
    "of objects that were not annotated count as wrong; `hqsam score lvis` has its rules"
)


@dataclass(frozen=True)
class Images:
    """The images of a set, in the order of their ids: the ids, and heights and widths, int64 [i]."""

    table: IdTable
    heights: Int
    widths: Int

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.table)

    @property
    def ids(self) -> Int:
        """The ids, int64 [i], rising; where they are names: their places."""
        return self.table.numbers

    def place(self, ids: Ids) -> Int:
        """Returns the place of each id, -1 for an unknown one: int64 [n]."""
        return self.table.place(ids)


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
        categories: ids of the K categories.
        image: int64 [g], place in `images`.
        category: int64 [g], place in `categories`.
        area: float64 [g], the annotation's own field; where it has none, the mask's pixels.
        crowd: bool [g], the field `iscrowd`.
        marked: bool [g], the field `ignore`. What both mean differs by measure: see `treated`.
        ids: annotation ids [g], int64 or objects.
        masks: run-length codes [g].
        federation: LVIS only.
        warnings: what the official loader tolerates, counted.
        category_names: of the K categories; where the file names none, their ids.
    """

    name: str
    images: Images
    categories: IdTable
    image: Int
    category: Int
    area: Float
    crowd: Bool
    marked: Bool
    ids: NDArray[Any]
    masks: RleBatch
    federation: Federation | None = None
    warnings: tuple[str, ...] = ()
    category_names: tuple[str, ...] = ()

    @property
    def category_ids(self) -> Int:
        """The ids of the categories, int64 [K], rising; where they are names: their places."""
        return self.categories.numbers

    def treated(self, *, boundary: bool) -> tuple[Bool, Bool]:
        """Returns which annotations a measure ignores, and which of them are crowds, bool [g] each.

        Ignored objects are no misses, and detections that match them no false alarms; crowds may be
        matched often and have an IoU of their own (see `hqsam_metrics.pairs`). The official
        programs differ: pycocotools overwrites
        `ignore` with `iscrowd`; the Boundary IoU API honours both, in COCO and in LVIS; lvis-api
        honours `ignore` and does not know `iscrowd`.

        Args:
            boundary: boundary AP; else mask AP.
        """
        if boundary:
            return self.crowd | self.marked, self.crowd
        return (
            (self.crowd, self.crowd)
            if self.federation is None
            else (self.marked, np.zeros_like(self.crowd))
        )


def read_images(content: Mapping[str, Any], name: str) -> Images:
    """Reads the list `images` (ids unique, sizes positive)."""
    rows = rows_of(content, "images", name)
    if not rows:
        raise UserError(f"{name}: `images` is empty; there is nothing to score")
    table, order = IdTable.of(rows, name, "image")
    heights, widths = (integers(rows, key, name, "image") for key in ("height", "width"))
    bad = np.flatnonzero((heights < 1) | (widths < 1))
    if len(bad):
        raise UserError(
            f"{name}: image id {rows[bad[0]]['id']} has no positive `height` and `width`"
        )
    return Images(table, heights[order], widths[order])


def parse_ground_truth(
    content: Any, name: str, *, lvis: bool = False, progress: Progress = silent
) -> GroundTruth:
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
    categories, _ = IdTable.of(rows_of(content, "categories", name), name, "category")
    rows = annotation_rows(content, name)
    ids = read_ids(rows, "id", name, "annotation")
    unique(ids, name, "annotation id")
    image = images.place(read_ids(rows, "image_id", name, "annotation"))
    classes = read_ids(rows, "category_id", name, "annotation")
    category = categories.place(classes)
    drawn = np.array([row.get("segmentation") != [] for row in rows], bool)
    keep = np.flatnonzero((image >= 0) & (category >= 0) & drawn)
    left_out = image < 0, category < 0, ~drawn
    kept = [rows[i] for i in keep]
    image, category = image[keep], category[keep]
    crowd, marked = (
        np.array([flag(row, key, name) for row in kept], bool) for key in ("iscrowd", "ignore")
    )
    warnings = [*zero_id_warning(ids), *_warnings(left_out, crowd, marked, lvis=lvis)]
    warnings += category_ids.of_annotations(classes, categories)
    if not lvis and "neg_category_ids" in content["images"][0]:
        warnings.append(_FEDERATED)
    masks = _gt_masks(kept, images, image, name, progress)
    area = _areas(kept, masks, name)
    # An LVIS annotation without area is none: it does not say that its category was looked for,
    # either.
    real = area > 0
    federation = (
        read_federation(content, images, categories, image[real], category[real], name)
        if lvis
        else None
    )
    of_kept = np.asarray(ids, None if isinstance(ids, np.ndarray) else object)[keep]
    listed = rows_of(content, "categories", name)
    places = categories.place(read_ids(listed, "id", name, "category"))
    names = {int(p): str(r.get("name", r["id"])) for p, r in zip(places, listed, strict=True)}
    return GroundTruth(
        name,
        images,
        categories,
        image,
        category,
        area,
        crowd,
        marked,
        of_kept,
        masks,
        federation,
        tuple(warnings),
        tuple(names[place] for place in range(len(names))),
    )


def annotation_rows(content: Mapping[str, Any], name: str) -> list[Any]:
    """Returns the list `annotations`.

    Raises:
        UserError: it has none, as the files of test splits.
    """
    if content.get("annotations"):
        return rows_of(content, "annotations", name)
    raise UserError(
        f"{name}: has no annotations, so there is nothing to score: is it the file of a test "
        f"split, whose ground truth is"
        " not public? Results for it are scored by the benchmark's server only"
    )


def check_countable(gt: GroundTruth, *, boundary: bool) -> None:
    """Checks that something can be scored.

    Args:
        gt: the annotations.
        boundary: for boundary AP; else for mask AP.

    Raises:
        UserError: every annotation is left out or ignored; the text says why.
    """
    ignore, _ = gt.treated(boundary=boundary)
    if (~ignore & ((gt.area > 0) | (gt.federation is None))).any():
        return
    if not len(ignore):
        why = "; ".join(gt.warnings) or "it has no annotations"
    elif gt.crowd.all() and ignore.all():
        why = (
            f"all {len(ignore)} annotations are crowd regions (`iscrowd`: 1), which are ignored. "
            f"CVAT writes brush masks so,"
            " and Rectlabel all run-length masks: set `iscrowd` to 0 if they are objects"
        )
    else:
        why = f"all {len(ignore)} annotations are ignored (`ignore`, `iscrowd`) or have no area"
    raise UserError(f"{gt.name}: has no object that counts: {why}")


def _warnings(
    left_out: tuple[Bool, Bool, Bool], crowd: Bool, marked: Bool, *, lvis: bool
) -> list[str]:
    """Says which annotations are left out, and which count by one measure only, as in the official programs."""
    what = (
        "of images that are not in `images`",
        "of unknown categories",
        "without a mask (`segmentation: []`; the official programs stop at them)",
    )
    out = [
        f"{int(wrong.sum())} annotations {why} were left out"
        for wrong, why in zip(left_out, what, strict=True)
        if wrong.any()
    ]
    program, flagged, key = (
        ("lvis-api", crowd, "iscrowd") if lvis else ("pycocotools", marked & ~crowd, "ignore")
    )
    if flagged.any():
        out.append(
            f"{int(flagged.sum())} annotations have `{key}`: mask AP counts them, as {program} does "
            f"not look at it; boundary AP ignores them, as the Boundary IoU API does"
        )
    return out


def _areas(rows: Sequence[Any], masks: RleBatch, name: str) -> Float:
    """Returns the annotations' own areas; where there is none, the mask's pixels."""
    without = np.flatnonzero([row.get("area") is None for row in rows])
    if not len(without):
        return numbers(rows, "area", name, "annotation")
    try:
        counted = decode_runs(masks.take(without)).areas()
    except RleError as error:
        wrong = rows[int(without[error.index])]["id"]
        raise UserError(
            f"{name}: annotation id {wrong}: malformed run-length code: {error.reason}"
        ) from None
    given = dict(zip(without.tolist(), counted.tolist(), strict=True))
    filled = [row if i not in given else {"area": given[i]} for i, row in enumerate(rows)]
    return numbers(filled, "area", name, "annotation")


def _gt_masks(
    rows: Sequence[Any], images: Images, image: Int, name: str, progress: Progress
) -> RleBatch:
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
    content: Mapping[str, Any],
    images: Images,
    categories: IdTable,
    image: Int,
    category: Int,
    name: str,
) -> Federation:
    """Reads what LVIS adds: negative and not exhaustive categories of the images, frequencies of the categories."""
    n = len(categories)
    owners = images.place(read_ids(content["images"], "id", name, "image"))
    pairs: dict[str, Int] = {}
    rows = content["images"]
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        if any(key not in row for row in rows):
            raise UserError(
                f"{name}: an image has no list `{key}`; is this an LVIS file? (COCO: `hqsam score "
                f"coco`)"
            )
        lists = [id_list(row[key], f"{name}: image id {row['id']}: `{key}`") for row in rows]
        at = np.repeat(owners, list(map(len, lists)))
        place = categories.place([value for one in lists for value in one])
        pairs[key] = np.unique((at * n + place)[place >= 0])
    bad = [
        row["id"] for row in content["categories"] if row.get("frequency") not in ("r", "c", "f")
    ]
    if bad:
        raise UserError(
            f"{name}: category id {bad[0]} has no `frequency` r, c or f; is this an LVIS file?"
        )
    frequency = np.empty(n, "U1")
    place = categories.place(read_ids(content["categories"], "id", name, "category"))
    frequency[place] = [row["frequency"] for row in content["categories"]]
    checked = np.union1d(image * n + category, pairs["neg_category_ids"])
    return Federation(checked, pairs["not_exhaustive_category_ids"], frequency)


def read_ground_truth(
    path: Path, *, lvis: bool = False, progress: Progress = silent
) -> GroundTruth:
    """Reads an annotation file (see `parse_ground_truth`)."""
    progress(0, 0, "reading ground truth")
    return parse_ground_truth(read_json(path), str(path), lvis=lvis, progress=progress)
