"""Own evaluation sets with a COCO or LVIS file and detections: boxes of a detector as prompts, scored by AP."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.ids import numbered, plain_id
from hqsam_base.json_stream import PackedRecords
from hqsam_datasets.benchmarks.base import BenchmarkOptions, Content, Item
from hqsam_datasets.benchmarks.cocolike import (
    Annotated,
    check_detections,
    check_ids,
    prompts_of,
    read_annotations,
    records,
    size_of,
    written,
)
from hqsam_datasets.benchmarks.results import Detections, read_detections
from hqsam_datasets.fetch.tree import NotHadError
from hqsam_datasets.formats.ground_truth import check_once, id_of
from hqsam_datasets.formats.image_files import ImageError, probe
from hqsam_datasets.sample import make_key
from hqsam_datasets.sources.annotations import Places, annotation_file, file_name
from hqsam_datasets.sources.base import SourceOptions, read_file
from hqsam_datasets.sources.own import found_single
from hqsam_datasets.sources.skip import Skip

VERSION = "own data"
NO_MASK = "annotations without a mask"
_MASKLESS = b'"segmentation":[]'
_FIX = "fix the record, or list the image under index.skip"
_FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")
Json = dict[str, Any]


def source_options(name: str, options: BenchmarkOptions | None) -> SourceOptions:
    """What the source of the same kind wants to know."""
    names = {"images", "masks", "annotations", "skip"}
    return SourceOptions(
        archive=name, **({} if options is None else options.model_dump(include=names))
    )


@contextlib.contextmanager
def keys_of_section(name: str) -> Iterator[None]:
    """What a source says about `sources.<name>` is about `benchmarks.<name>.index` here."""

    def here(text: str | None) -> str | None:
        return None if text is None else text.replace(f"sources.{name}", f"benchmarks.{name}.index")

    try:
        yield
    except UserError as error:
        raise error.amended(key=here(error.key), cure=here(error.cure)) from error


@dataclass(frozen=True, kw_only=True)
class DetectedSet:
    """The images of an annotation file with all detections on them.

    Images are found as those of a training source (`sources.annotations`). What a COCO file may
    lack and AP needs is filled in: sizes from the images, areas from the masks, `iscrowd` with 0.

    Attributes:
        kind: By whose rules it is scored.
        options: `benchmarks.<name>.index`.
    """

    name: str
    kind: Literal["coco", "lvis"]
    options: BenchmarkOptions
    dataset_version: str = VERSION
    class_agnostic: bool = False

    def read(self, root: Path) -> Content:
        """All images but those under `skip`, with every detection on them."""
        with keys_of_section(self.name):
            options = source_options(self.name, self.options)
            path = annotation_file(self.name, root, str(options.annotations))
            named, key = self.options.detections, f"benchmarks.{self.name}.index.detections"
            boxes_at = None if named is None else _had(root, str(named), key)
            annotated = read_annotations(path)
            truth, numbers = annotated.truth, _numbers(annotated, path)
            images = {record["id"]: record for record in truth["images"]}
            objects = {numbers.image(one): places for one, places in annotated.by_image.items()}
            check_ids(objects, set(images), path, "annotations of images")
            names = {number: file_name(record, path) for number, record in images.items()}
            found, skipped = _find(self.name, names, root, path, options)
        self._check_classes(truth, images, path)
        boxes = Detections.none()
        if boxes_at is not None:
            boxes = _without(
                read_detections(boxes_at, image=numbers.image, category=numbers.category), skipped
            )
        _fill_sizes(images, found, path)
        if boxes_at is not None:
            sizes = {number: size_of(images[number], path) for number in found}
            check_detections(
                boxes, sizes, boxes_at, truth=truth, truth_at=path, class_agnostic=False
            )
        some = {number: images[number] for number in sorted(found)}
        kept, places, maskless = _with_mask(some, objects, annotated.packed)
        left_out = Counter({"listed in skip": len(skipped), NO_MASK: maskless})

        def items() -> Iterator[Item]:
            for number, record in some.items():
                key, size = make_key(self.name, f"{number:012d}"), size_of(record, path)
                truths = tuple(
                    written(kept, n, number, size, path, numbers.of_annotation)
                    for n in places[number]
                )
                yield Item(
                    key=key,
                    path=found[number],
                    image_id=number,
                    height=size[0],
                    width=size[1],
                    truths=truths,
                    prompts=prompts_of(key, boxes, number),
                )

        shown = {**truth, "images": list(some.values()), "annotations": kept}
        return Content(items=items(), n_images=len(found), ground_truth=shown, left_out=+left_out)

    def _check_classes(self, truth: Json, images: dict[int, Json], path: Path) -> None:
        """AP is a mean over classes; LVIS also wants to know which were looked for in an image."""
        if not truth.get("categories"):
            cure = "list the classes: [{id: 1, name: bird}]; AP is a mean over them"
            raise UserError("the file has no categories", file=path, key="categories", cure=cure)
        if self.kind != "lvis":
            return
        cure = (
            "add it as in LVIS v1, or say kind: coco_json, which is scored as if every class was "
            "looked for in every image"
        )
        for number, record in images.items():
            for key in _FEDERATED:
                if not isinstance(record.get(key), list):
                    raise UserError(
                        f"an image has no list {key}", file=path, key=f"image {number}", cure=cure
                    )
        for record in truth["categories"]:
            if record.get("frequency") not in ("r", "c", "f"):
                key = f"category {record.get('id')}"
                raise UserError(
                    "a category has no frequency r, c or f", file=path, key=key, cure=cure
                )


def _had(root: Path, name: str, key: str) -> Path | None:
    """The file; None if it is optional and unavailable: the set has no prompts then."""
    try:
        return found_single(root, name, key=key)
    except NotHadError:
        return None


def _find(
    section: str, names: dict[int, str], root: Path, annotations: Path, options: SourceOptions
) -> tuple[dict[int, Path], set[int]]:
    """Return where the images lie, and those under `skip`."""
    leave = Skip(options.skip)
    stems = {number: str(PurePosixPath(name).with_suffix("")) for number, name in names.items()}
    skipped = {number for number, stem in stems.items() if stem in leave}
    leave.check(f"sources.{section}.skip")
    places = Places(section, root, annotations, options)
    found = {n: places.find(name) for n, name in names.items() if n not in skipped}
    places.check()
    return {number: place for number, place in found.items() if place is not None}, skipped


def _without(boxes: Detections, skipped: set[int]) -> Detections:
    keep = ~np.isin(boxes.image_ids, sorted(skipped))
    return replace(
        boxes,
        image_ids=boxes.image_ids[keep],
        categories=boxes.categories[keep],
        boxes=boxes.boxes[keep],
        scores=boxes.scores[keep],
    )


def _with_mask(
    images: Iterable[int], objects: Mapping[int | str, list[int]], packed: PackedRecords
) -> tuple[PackedRecords, dict[int, range], int]:
    """Return annotations image by image, their positions by image, and the number without a mask."""
    kept, places, maskless = PackedRecords(), {}, 0
    for number in images:
        texts = [packed.texts[n] for n in objects.get(number, ())]
        drawn = [text for text in texts if _MASKLESS not in text]
        places[number] = range(len(kept), len(kept) + len(drawn))
        kept.texts.extend(drawn)
        maskless += len(texts) - len(drawn)
    return kept, places, maskless


def _fill_sizes(images: dict[int, Json], found: dict[int, Path], path: Path) -> None:
    """Add the sizes that the file may leave out, and write the others as numbers; in place."""
    for number, place in found.items():
        record = images[number]
        if record.get("height") is None or record.get("width") is None:
            try:
                record["height"], record["width"] = probe(
                    read_file(place, "unreadable_image")
                ).upright_size
            except ImageError as error:
                raise UserError(
                    f"the image cannot be used: {error}",
                    file=place,
                    key=f"image {number}",
                    cure=_FIX,
                ) from error
        record["height"], record["width"] = size_of(record, path)


@dataclass(frozen=True)
class _Numbers:
    """Numbers of images, categories and annotations; ids that are numbers stay as they are."""

    images: Mapping[int | str, int]
    categories: Mapping[int | str, int]
    annotations: Mapping[int | str, int]

    def image(self, value: Any) -> int | str:
        """The number of an image id; an unknown id as it is, for the message."""
        one = plain_id(value)
        return self.images.get(one, one)

    def category(self, value: Any) -> int | str:
        """The number of a category id; an unknown id as it is."""
        one = plain_id(value)
        return self.categories.get(one, one)

    def of_annotation(self, record: Json) -> Json:
        """An annotation with the numbers in place of its own and its category's id."""
        out = {**record, "id": self.annotations[plain_id(record["id"])]}
        return out | (
            {"category_id": self.category(record["category_id"])} if "category_id" in record else {}
        )


def _numbers(annotated: Annotated, path: Path) -> _Numbers:
    """Number the ids of a file if some are names, in place; write those of images and categories."""
    maps = []
    for name in ("images", "categories"):
        found = records(annotated.truth, name, path) if annotated.truth.get(name) else []
        ids = [id_of(record, "id", path) for record in found]
        check_once(ids, path, name)
        maps.append(numbered(ids))
        renamed = any(isinstance(one, str) for one in ids)
        for record, one in zip(found, ids, strict=True):
            # Results for the file, read or written later, go by its own ids.
            record |= {"original_id": record["id"]} if renamed else {}
            record["id"] = maps[-1][one]
    if not annotated.truth.get("images"):
        raise UserError("the file has no images", file=path, key="images", cure=_FIX)
    return _Numbers(maps[0], maps[1], numbered(annotated.ids))
