"""Evaluation sets of one's own with a COCO or LVIS file and detections: boxes of a detector as prompts, scored by AP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_base.json_stream import PackedRecords, canonical
from hqsam_datasets.benchmarks.base import BenchmarkOptions, Content, Item
from hqsam_datasets.benchmarks.cocolike import (
    check_detections,
    check_ids,
    prompts_of,
    read_annotations,
    records,
    segmentation,
    size_of,
    truth_of,
    whole,
)
from hqsam_datasets.benchmarks.results import Detections, read_detections
from hqsam_datasets.fetch.extract import NotHadError
from hqsam_datasets.formats.images import ImageError, probe
from hqsam_datasets.sample import make_key
from hqsam_datasets.sources.annotations import Places, annotation_file, file_name
from hqsam_datasets.sources.base import SourceOptions, read_file
from hqsam_datasets.sources.own import found_single
from hqsam_datasets.sources.skip import Skip

VERSION = "own data"
_MEND = "mend the record, or list the image under index.skip"
_FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")
Json = dict[str, Any]


def source_options(name: str, options: BenchmarkOptions | None) -> SourceOptions:
    """What the source of the same kind wants to know."""
    names = {"images", "masks", "annotations", "skip"}
    return SourceOptions(archive=name, **({} if options is None else options.model_dump(include=names)))


@contextlib.contextmanager
def keys_of_section(name: str) -> Iterator[None]:
    """What a source says about `sources.<name>` is about `benchmarks.<name>.index` here."""

    def here(text: str | None) -> str | None:
        return None if text is None else text.replace(f"sources.{name}", f"benchmarks.{name}.index")

    try:
        yield
    except UserError as error:
        raise type(error)(error.problem, file=error.file, key=here(error.key), cure=here(error.cure)) from error


@dataclass(frozen=True, kw_only=True)
class DetectedSet:
    """The images of an annotation file with all detections on them.

    Images are found as those of a training source (`sources.annotations`). What a COCO file may lack and AP needs is
    filled in: sizes from the images, areas from the masks, `iscrowd` with 0.

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
            boxes_at = _had(root, str(self.options.detections), f"benchmarks.{self.name}.index.detections")
            truth, objects = read_annotations(path)
            images = {whole(record, "id", path): record for record in records(truth, "images", path)}
            check_ids(objects, set(images), path, "annotations of images")
            skipped = _skipped(images, path, Skip(options.skip), f"sources.{self.name}.skip")
            found = _find(images, skipped, Places(self.name, root, path, options), path)
        self._check_classes(truth, images, path)
        boxes = Detections.none() if boxes_at is None else _without(read_detections(boxes_at), skipped)
        if boxes_at is not None:
            check_detections(boxes, set(found), boxes_at, truth=truth, truth_at=path, class_agnostic=False)
        _fill(truth["annotations"], images, found, path)
        places = [n for number in sorted(found) for n in objects.get(number, [])]
        kept = PackedRecords([truth["annotations"].texts[n] for n in places])
        items = self._items({n: images[n] for n in sorted(found)}, found, truth["annotations"], objects, boxes, path)
        shown = {**truth, "images": [images[n] for n in sorted(found)], "annotations": kept}
        left_out = {"listed in skip": len(skipped)} if skipped else {}
        return Content(items=items, n_images=len(found), ground_truth=shown, left_out=left_out)

    def _items(
        self, images: dict[int, Json], found: dict[int, Path], packed: PackedRecords, objects: dict[Any, list[int]],
        boxes: Detections, path: Path,
    ) -> Iterator[Item]:  # fmt: skip
        for number, record in images.items():
            key, (height, width) = make_key(self.name, f"{number:012d}"), size_of(record, path)
            yield Item(
                key=key, path=found[number], image_id=number, height=height, width=width,
                truths=tuple(truth_of(packed[n], height, width, path) for n in objects.get(number, [])),
                prompts=prompts_of(key, boxes, number),
            )  # fmt: skip

    def _check_classes(self, truth: Json, images: dict[int, Json], path: Path) -> None:
        """AP is a mean over classes; LVIS also wants to know which were looked for in an image."""
        if not truth.get("categories"):
            cure = "list the classes: [{id: 1, name: bird}]; AP is a mean over them"
            raise UserError("the file has no categories", file=path, key="categories", cure=cure)
        if self.kind != "lvis":
            return
        cure = "add it as in LVIS v1, or say kind: coco_json, which is scored as if every class was looked for in every image"
        for number, record in images.items():
            for key in _FEDERATED:
                if not isinstance(record.get(key), list):
                    raise UserError(f"an image has no list {key}", file=path, key=f"image {number}", cure=cure)
        for record in truth["categories"]:
            if record.get("frequency") not in ("r", "c", "f"):
                key = f"category {record.get('id')}"
                raise UserError("a category has no frequency r, c or f", file=path, key=key, cure=cure)


def _had(root: Path, name: str, key: str) -> Path | None:
    """The file; None if it is optional and could not be had: the set has no prompts then."""
    try:
        return found_single(root, name, key=key)
    except NotHadError:
        return None


def _skipped(images: dict[int, Json], path: Path, skip: Skip, key: str) -> set[int]:
    stems = {number: str(PurePosixPath(file_name(record, path)).with_suffix("")) for number, record in images.items()}
    skipped = {number for number, stem in stems.items() if stem in skip}
    skip.check(key)
    return skipped


def _find(images: dict[int, Json], skipped: set[int], places: Places, path: Path) -> dict[int, Path]:
    found = {number: places.find(file_name(record, path)) for number, record in images.items() if number not in skipped}
    places.check()
    return {number: place for number, place in found.items() if place is not None}


def _without(boxes: Detections, skipped: set[int]) -> Detections:
    keep = ~np.isin(boxes.image_ids, sorted(skipped))
    return replace(
        boxes, image_ids=boxes.image_ids[keep], categories=boxes.categories[keep], boxes=boxes.boxes[keep],
        scores=boxes.scores[keep],
    )  # fmt: skip


def _fill(packed: PackedRecords, images: dict[int, Json], found: dict[int, Path], path: Path) -> None:
    """Add what the file may leave out, in place."""
    for number, place in found.items():
        record = images[number]
        if record.get("height") is None or record.get("width") is None:
            try:
                record["height"], record["width"] = probe(read_file(place, "unreadable_image")).upright_size
            except ImageError as error:
                raise UserError(
                    f"the image cannot be used: {error}", file=place, key=f"image {number}", cure=_MEND
                ) from error
    for n, text in enumerate(packed.texts):
        if b'"area"' in text and b'"iscrowd"' in text:
            continue
        record = packed[n]
        number = whole(record, "image_id", path)
        if number in found:
            height, width = size_of(images[number], path)
            counts = segmentation(record, height, width, path)
            area = float(rle.area(counts, height=height, width=width))
            packed.texts[n] = canonical({"area": area, "iscrowd": 0} | record)
