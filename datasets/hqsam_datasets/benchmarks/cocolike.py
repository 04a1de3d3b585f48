"""Sets in the COCO instances format: annotations, and detections in the COCO results format as box prompts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from hqsam_base import json_stream, rle
from hqsam_base.errors import UserError
from hqsam_base.ids import in_order
from hqsam_base.json_stream import PackedRecords, iterate_members
from hqsam_base.json_stream import canonical as as_text
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Prompt, Truth
from hqsam_datasets.benchmarks.common import find_file, find_folder, find_prompts
from hqsam_datasets.benchmarks.results import Detections, read_detections
from hqsam_datasets.fetch.tree import below
from hqsam_datasets.formats import ground_truth
from hqsam_datasets.formats.ground_truth import id_of
from hqsam_datasets.formats.image_files import MAX_PIXELS
from hqsam_datasets.sample import make_key

Json = dict[str, Any]
_CURE = "fetch the file again, or fix the record"


def read_json(path: Path, kind: type[Any]) -> Any:
    """Parse an annotation or result file whose top level must be a ``dict`` or ``list``.

    Raises:
        UserError: not JSON (truncated download?) or of another shape.
    """
    value = json_stream.read_json(path)
    if not isinstance(value, kind):
        raise UserError(
            f"the top level is a {type(value).__name__}, not a {kind.__name__}", file=path
        )
    return value


@dataclass(frozen=True)
class Annotated:
    """A file in the COCO instances format.

    Attributes:
        truth: Its content, the annotations packed.
        by_image: Places of the annotations of each image, by its id.
        ids: Ids of the annotations in the file's order.
    """

    truth: Json
    by_image: dict[Any, list[int]]
    ids: list[int | str]

    @property
    def packed(self) -> PackedRecords:
        """The annotations."""
        found: PackedRecords = self.truth["annotations"]
        return found


def read_annotations(path: Path) -> Annotated:
    """A file in the COCO instances format.

    Raises:
        UserError: not JSON (truncated download?), without annotations, an annotation without image,
            or an id twice.
    """
    cure = "fetch the file again"
    truth: Json = {}
    ids: list[int | str] = []
    packed, by_image = PackedRecords(), defaultdict[Any, list[int]](list)
    for name, value in iterate_members(path, ("annotations",), problem="not valid JSON", cure=cure):
        if name != "annotations":
            truth[name] = value
        elif value is None:
            truth[name] = packed
        else:
            by_image[id_of(value, "image_id", path)].append(len(packed))
            ids.append(id_of(value, "id", path))
            try:
                packed.texts.append(as_text(value))
            except ValueError as error:
                key, problem = f"annotation {value.get('id')}", f"not valid JSON: {error}"
                raise UserError(problem, file=path, key=key, cure=cure) from error
    if truth.get("annotations") is not packed:
        raise UserError(
            "the file has no list of annotations", file=path, cure=ground_truth.NO_ANNOTATIONS
        )
    ground_truth.check_once(ids, path, "annotations")
    return Annotated(truth, by_image, ids)


def field(record: Mapping[str, Any], name: str, path: Path) -> Any:
    """A required key of a record; the error names file and record."""
    if not isinstance(record, Mapping):
        raise UserError(f"{str(record)[:80]!r} is not a record", file=path, cure=_CURE)
    if name not in record:
        raise UserError(
            f"a record lacks {name!r}",
            file=path,
            key=str(record.get("id", dict(record)))[:120],
            cure=_CURE,
        )
    return record[name]


def whole(record: Mapping[str, Any], name: str, path: Path) -> int:
    """A required whole number of a record."""
    value = field(record, name, path)
    try:
        if (number := int(value)) == float(value) and abs(number) < 1 << 63:
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise _wrong(record, name, value, path, "a whole number")


def real(record: Mapping[str, Any], name: str, path: Path) -> float:
    """A required finite number of a record."""
    value = field(record, name, path)
    try:
        if math.isfinite(number := float(value)):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise _wrong(record, name, value, path, "a number")


def size_of(record: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """(height, width) of an image or video record; no more than any image that is read may have."""
    height, width = whole(record, "height", path), whole(record, "width", path)
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise _wrong(record, "height and width", [height, width], path, "the size of an image")
    return height, width


def inside(record: Mapping[str, Any], name: str, path: Path) -> str:
    """A required path of a record, inside the folder of the images."""
    value = field(record, name, path)
    if (
        not isinstance(value, str)
        or not value
        or value.startswith(("/", "\\"))
        or ".." in value.split("/")
    ):
        raise _wrong(record, name, value, path, "a path inside the archive")
    return value


def records(owner: Mapping[str, Any], name: str, path: Path) -> list[Json]:
    """A required list of objects."""
    value = field(owner, name, path)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise UserError(f"{name} is not a list of objects", file=path, key=name, cure=_CURE)
    return value


def _wrong(record: Mapping[str, Any], name: str, value: Any, path: Path, wanted: str) -> UserError:
    key = f"{name} of record {str(record.get('id', ''))[:40]}"
    return UserError(f"{name} is {str(value)[:60]!r}, not {wanted}", file=path, key=key, cure=_CURE)


def group(found: list[Json], by: str, path: Path) -> dict[Any, list[Json]]:
    """Records by the whole number of one key, in file order."""
    groups: dict[Any, list[Json]] = defaultdict(list)
    for record in found:
        groups[whole(record, by, path)].append(record)
    return groups


def check_ids(groups: Mapping[Any, Any], known: set[Any], path: Path, what: str) -> None:
    """Every group must belong to a known image or video."""
    unknown = sorted(set(groups) - known, key=in_order)
    if unknown:
        raise UserError(
            f"{len(unknown)} {what} that the annotations do not have, first {unknown[0]}",
            file=path,
            key=str(unknown[0]),
            cure="use the prompt file that belongs to this annotation file",
        )


def check_categories(found: Iterable[int], truth: Json, truth_at: Path, path: Path) -> None:
    """Refuse classes that the annotations do not have: numbered otherwise, every box would score as wrong."""
    known = {whole(entry, "id", truth_at) for entry in records(truth, "categories", truth_at)}
    unknown = sorted(set(found) - known)
    if known and unknown:
        raise UserError(
            f"{len(unknown)} category_id that the annotations do not have, first {unknown[0]}; "
            f"they have "
            f"{min(known)} to {max(known)}",
            file=path,
            key=f"category_id {unknown[0]}",
            cure="write the annotation file's own category ids (COCO's have gaps), or leave such "
            "boxes out",
        )


def check_detections(
    boxes: Detections,
    images: Mapping[Any, tuple[int, int]],
    path: Path,
    *,
    truth: Json,
    truth_at: Path,
    class_agnostic: bool,
) -> None:
    """Every box must be on a known image, and of a known class where classes count.

    Args:
        boxes: The detections.
        images: Height and width of each image, by its id.
        path: Their file, for messages.
        truth: The annotations.
        truth_at: Their file.
        class_agnostic: Whether classes count for nothing.

    Raises:
        UserError: unknown images or classes, or boxes in other units.
    """
    ids = dict.fromkeys(np.unique(boxes.image_ids).tolist())
    check_ids(ids, set(images), path, "detections on images")
    _check_units(boxes, images, path)
    if not class_agnostic:
        check_categories(np.unique(boxes.categories).tolist(), truth, truth_at, path)


def _check_units(boxes: Detections, images: Mapping[Any, tuple[int, int]], path: Path) -> None:
    """Refuse boxes that are fractions, corners, or of images of another size: each prompt would silently be wrong."""
    if not len(boxes.scores):
        return
    sizes = np.array([images[number][::-1] for number in boxes.image_ids.tolist()])
    far = boxes.boxes[:, 2:]
    # Detectors keep to their image, but for rounding and a little padding.
    beyond = np.asarray((far > sizes * 1.02 + 2).any(axis=1))
    if (np.abs(boxes.boxes) <= 1).all() and (sizes > 2).all():
        problem, cure = "the boxes are fractions of an image", "write bbox in pixels"
    elif beyond.mean() > 0.5:
        problem = f"{beyond.sum()} of {len(beyond)} boxes reach beyond their image"
        near, sides = boxes.boxes[:, :2], far - boxes.boxes[:, :2]
        corners = ((near <= sides) & (sides <= sizes * 1.02 + 2)).all()
        cure = (
            "they seem to be corners [x0, y0, x1, y1]: write bbox as [x, y, width, height]"
            if corners
            else "write bbox in pixels of the images in the size that the annotations have"
        )
    else:
        return
    raise UserError(problem, file=path, key="bbox", cure=cure)


def segmentation(record: Json, height: int, width: int, path: Path) -> str:
    """The record's mask as compressed counts; the error names file and annotation."""
    try:
        return rle.from_segmentation(
            field(record, "segmentation", path), height=height, width=width
        )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"bad segmentation: {error}", file=path, key=f"annotation {record.get('id')}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class CocoLike:
    """A set in the COCO instances format.

    Attributes:
        annotations: Name of the annotation file.
        detections: Name of the prompt file: COCO results ``[{image_id, category_id, bbox [x, y, w,
            h], score}]``; None: no boxes are read.
        locate: Relative path of an image below the root from its record.
        place: The key of an image record that `locate` makes the path from.
        video_of: Name of the video of an image record, for sets made of video frames.
    """

    name: str
    kind: Kind
    dataset_version: str
    class_agnostic: bool
    annotations: str
    detections: str | None
    locate: Callable[[Json], str]
    place: str = "file_name"
    video_of: Callable[[Json], str] | None = None

    def without_boxes(self) -> Self:
        """See `hqsam_datasets.benchmarks.base.Benchmark`."""
        return replace(self, detections=None)

    def read(self, root: Path) -> Content:
        """All images of the annotation file with every detection on them."""
        path = find_file(root, self.annotations)
        annotated = read_annotations(path)
        truth = annotated.truth
        images = sorted(records(truth, "images", path), key=lambda r: whole(r, "id", path))
        known = {whole(r, "id", path): size_of(r, path) for r in images}
        check_ids(annotated.by_image, set(known), path, "annotations of images")
        found_at = None if self.detections is None else find_prompts(root, self.detections)
        boxes = Detections.none() if found_at is None else read_detections(found_at)
        if found_at is not None:
            check_detections(
                boxes,
                known,
                found_at,
                truth=truth,
                truth_at=path,
                class_agnostic=self.class_agnostic,
            )
        check_categories_once(truth, path)
        items = self._items(root, path, images, annotated, boxes)
        return Content(items=items, n_images=len(images), ground_truth=truth)

    def _items(
        self,
        root: Path,
        path: Path,
        images: list[Json],
        annotated: Annotated,
        boxes: Detections,
    ) -> Iterator[Item]:
        where, packed, places = _Locator(root), annotated.packed, annotated.by_image
        for record in images:
            number, (height, width) = whole(record, "id", path), size_of(record, path)
            record |= {"id": number, "height": height, "width": width}
            inside(record, self.place, path)
            key = make_key(self.name, f"{number:012d}")
            yield Item(
                key=key,
                path=where(self.locate(record)),
                image_id=number,
                height=height,
                width=width,
                video=self.video_of(record) if self.video_of else None,
                truths=tuple(
                    written(packed, o, number, (height, width), path)
                    for o in places.get(number, [])
                ),
                prompts=prompts_of(key, boxes, number),
            )


class _Locator:
    """Finds image files whether or not the archives had a root folder; each folder is searched once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, Path] = {}

    def __call__(self, relative: str) -> Path:
        head, _, rest = relative.partition("/")
        if head not in self._folders:
            found = sorted(
                (p for p in self._root.rglob(head) if p.is_dir()), key=lambda p: (-len(p.parts), p)
            )
            # The folder, or the only one in it if that holds the first file: a copy packed with a
            # root folder of another name
            folder = found[0] if found else find_folder(self._root, head)
            inner = [child for child in folder.iterdir() if child.is_dir()]
            self._folders[head] = (
                inner[0] if len(inner) == 1 and (inner[0] / rest).is_file() else folder
            )
        return below(self._folders[head], rest)


def truth_of(record: Json, height: int, width: int, path: Path) -> Truth:
    """Convert an annotation record to ground truth; a missing area is counted. Errors name file and annotation."""
    counts = segmentation(record, height, width, path)
    counted = record.get("area") is None
    return Truth(
        instance_id=str(id_of(record, "id", path)),
        rle=counts,
        area=float(rle.area(counts, height=height, width=width))
        if counted
        else real(record, "area", path),
        category_id=whole(record, "category_id", path),
        iscrowd=ground_truth.yes(record, "iscrowd", path),
    )


def written(
    packed: PackedRecords,
    place: int,
    image: int,
    size: tuple[int, int],
    path: Path,
    renumbered: Callable[[Json], Json] = dict,
) -> Truth:
    """An annotation as ground truth; `gt.json` gets it in the one form (see `formats.ground_truth`).

    Args:
        packed: the annotations; the one at `place` is replaced.
        place: which.
        image: number of its image.
        size: (height, width) of its image.
        path: the file, for messages.
        renumbered: gives an annotation numbers in place of ids that are names.
    """
    record = renumbered(packed[place])
    truth = truth_of(record, *size, path)
    known = {
        "id": whole(record, "id", path),
        "image_id": image,
        "category_id": truth.category_id,
        "area": truth.area,
    }
    whole_record = ground_truth.annotation(
        record, path, segmentation=ground_truth.mask(truth.rle, *size), **known
    )
    packed.texts[place] = as_text(whole_record)
    return truth


def check_categories_once(truth: Json, path: Path) -> None:
    """Stop on two classes with one id, and write the ids as numbers."""
    found = records(truth, "categories", path)
    for record in found:
        record["id"] = whole(record, "id", path)
    ground_truth.check_once((record["id"] for record in found), path, "categories")


def prompts_of(
    key: str, boxes: Detections, image_id: int, *, first_category: int = 0
) -> tuple[Prompt, ...]:
    """Return the detections of an image as box prompts, in file order; ``first_category`` offsets classes."""
    return tuple(
        Prompt(
            prompt_id=f"{key}-{rank:05d}",
            prompt_set="detector_box",
            box=box,
            score=score,
            category_id=category + first_category,
        )
        for rank, (category, box, score) in enumerate(boxes.of(image_id))
    )
