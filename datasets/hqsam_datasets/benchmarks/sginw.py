"""SGinW, Segmentation in the Wild: 25 small sets of different domains, valid split, COCO format.

Source: Zou et al., X-Decoder, CVPR 2023 (Roboflow data sets, licences differ per set); `seginw.zip`
of the HQ-SAM authors. Layout: `<Set>/valid/*.jpg`, `<Set>/valid/_annotations_min1cat.coco.json`
(0-based category ids; the file
`_annotations.coco.json` beside it has an extra parent category and is not used). Prompts: boxes of
GroundingDINO Swin-B, one COCO results file a set, `seginw-<Set>_val.json`, the best 100 (box,
class) pairs an image; the score is the detector's alone. The results that HQ-SAM's authors
published under these names (`grounded_sam.zip`,
`grounded_hqsam.zip`) hold final masks and no boxes: they check an evaluator and are not prompts.

The 25 sets become one benchmark: image and category ids are numbered through, and each category's
`supercategory` is its set. The headline of SGinW is the mean over the 25 sets of the sets' AP, that
is, categories weigh by set. Known bad files: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.sginw import CATEGORIES_A_SET, IMAGES_A_SET, SETS
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Truth
from hqsam_datasets.benchmarks.cocolike import (
    check_categories_once,
    check_detections,
    check_ids,
    group,
    inside,
    prompts_of,
    read_json,
    records,
    size_of,
    truth_of,
    whole,
)
from hqsam_datasets.benchmarks.common import find_prompts
from hqsam_datasets.benchmarks.results import Detections, read_detections
from hqsam_datasets.fetch.tree import below, found_below
from hqsam_datasets.formats import ground_truth
from hqsam_datasets.sample import make_key

Json = dict[str, Any]
_ANNOTATIONS = "valid/_annotations_min1cat.coco.json"
_ANNOTATIONS_A_SET = 100_000_000


@dataclass(frozen=True)
class _Part:
    """One set, its ids numbered through."""

    name: str
    number: int
    folder: Path
    path: Path
    truth: Json
    objects: dict[int, list[tuple[Truth, Json]]]
    boxes: Detections

    def image_id(self, original: int) -> int:
        return self.number * IMAGES_A_SET + original

    @property
    def first_category(self) -> int:
        return self.number * CATEGORIES_A_SET


@dataclass(frozen=True)
class Sginw:
    """The sets named, all 25 by default."""

    name: str = "sginw"
    kind: Kind = "coco"
    dataset_version: str = "SGinW valid (25 sets)"
    class_agnostic: bool = False
    sets: tuple[str, ...] = SETS

    def read(self, root: Path) -> Content:
        """Every image of every set with GroundingDINO's boxes on it, if their optional archive is there."""
        ordered = sorted(self.sets, key=lambda name: make_key("", name) + "-")
        parts = [_part(root, name, number) for number, name in enumerate(ordered, start=1)]
        n_images = sum(len(part.truth["images"]) for part in parts)
        return Content(items=self._items(parts), n_images=n_images, ground_truth=_merged(parts))

    def _items(self, parts: list[_Part]) -> Iterator[Item]:
        for part in parts:
            for record in sorted(part.truth["images"], key=lambda r: whole(r, "id", part.path)):
                original, (height, width) = (
                    whole(record, "id", part.path),
                    size_of(record, part.path),
                )
                key = make_key(self.name, f"{part.name}-{original:08d}")
                yield Item(
                    key=key,
                    path=below(part.folder, inside(record, "file_name", part.path)),
                    image_id=part.image_id(original),
                    height=height,
                    width=width,
                    truths=tuple(truth for truth, _ in part.objects.get(original, [])),
                    prompts=prompts_of(
                        key, part.boxes, original, first_category=part.first_category
                    ),
                )


def _part(root: Path, name: str, number: int) -> _Part:
    path = found_below(root, f"{name}/{_ANNOTATIONS}", depth=4)
    truth = read_json(path, dict)
    sizes = {whole(r, "id", path): size_of(r, path) for r in records(truth, "images", path)}
    known = set(sizes)
    check_categories_once(truth, path)
    objects = group(records(truth, "annotations", path), "image_id", path)
    check_ids(objects, known, path, "annotations of images")
    results = find_prompts(root, f"seginw-{name}_val.json")
    boxes = Detections.none() if results is None else read_detections(results)
    if results is not None:
        check_detections(boxes, sizes, results, truth=truth, truth_at=path, class_agnostic=False)
    classes = [whole(c, "id", path) for c in records(truth, "categories", path)]
    if (
        not all(0 <= number < CATEGORIES_A_SET for number in classes)
        or max(known, default=0) >= IMAGES_A_SET
    ):
        raise UserError("ids are too large to number the sets through", file=path, key=name)
    part = _Part(name, number, path.parent, path, truth, {}, boxes)
    for image, found in objects.items():
        part.objects[image] = [_renumbered(part, record, sizes[image]) for record in found]
    return part


def _renumbered(part: _Part, record: Json, size: tuple[int, int]) -> tuple[Truth, Json]:
    """An annotation as ground truth, and as `gt.json` has it."""
    numbers = {
        "id": part.number * _ANNOTATIONS_A_SET + whole(record, "id", part.path),
        "image_id": part.image_id(whole(record, "image_id", part.path)),
        "category_id": part.first_category + whole(record, "category_id", part.path),
    }
    truth = truth_of(record | numbers, *size, part.path)
    known = {"area": truth.area, "segmentation": ground_truth.mask(truth.rle, *size)}
    return truth, ground_truth.annotation(record, part.path, **numbers, **known)


def _merged(parts: list[_Part]) -> Json:
    """One COCO file of all sets."""
    return {
        "images": [
            {
                **r,
                **dict(zip(("height", "width"), size_of(r, part.path), strict=True)),
                "id": part.image_id(whole(r, "id", part.path)),
                "file_name": f"{part.name}/valid/{inside(r, 'file_name', part.path)}",
            }
            for part in parts
            for r in part.truth["images"]
        ],
        "annotations": [row for part in parts for some in part.objects.values() for _, row in some],
        "categories": [
            {**c, "id": part.first_category + whole(c, "id", part.path), "supercategory": part.name}
            for part in parts
            for c in part.truth["categories"]
        ],
    }


BENCHMARK = Sginw()
