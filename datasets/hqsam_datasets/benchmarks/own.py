"""Evaluation sets of one's own: read like training sources of one's own, each object prompted by its ground-truth box.

With detections beside a COCO or LVIS file, the set is read like COCO or LVIS instead, for AP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_datasets import rle
from hqsam_datasets.benchmarks.base import BenchmarkOptions, Content, Item, Kind, Prompt, Truth
from hqsam_datasets.benchmarks.cocolike import CocoLike
from hqsam_datasets.benchmarks.common import box_prompt
from hqsam_datasets.errors import UserError
from hqsam_datasets.images import FOREGROUND, ImageError, probe
from hqsam_datasets.keys import distinct_keys
from hqsam_datasets.sources.base import Pair, Source, SourceOptions, read_file

VERSION = "own data"
_CURE = "mend the file, or list its name under index.skip: evaluation leaves nothing out by itself"


@dataclass(frozen=True, kw_only=True)
class OwnSet:
    """A set of one's own; `of_section` gives it the name and the options of a section of params.yaml.

    Attributes:
        source: Reads the archive.
        detected: How detections make it a COCO-like set: kind, the key of an image record that holds its path, and the path
            below the folder of the images from that value. None: the files cannot have detections.
        options: `benchmarks.<name>.index`; None: of no section yet.
    """

    name: str
    source: Source
    detected: tuple[Kind, str, Callable[[str], str]] | None = None
    options: BenchmarkOptions | None = None
    kind: Kind = "masks"
    dataset_version: str = VERSION
    class_agnostic: bool = True

    def of_section(self, name: str, options: BenchmarkOptions) -> OwnSet | CocoLike:
        """The set that `benchmarks.<name>` describes.

        Raises:
            UserError: detections are named where there can be none, or without what belongs to them.
        """
        if options.detections is None:
            return replace(self, name=name, options=options)
        key = f"benchmarks.{name}.index"
        if self.detected is None:
            cure = "remove it, or bring a COCO or LVIS file and say kind: coco_json or lvis_json"
            raise UserError(
                "detections need an annotation file", file="params.yaml", key=f"{key}.detections", cure=cure
            )
        for needed in ("annotations", "images"):
            if getattr(options, needed) is None:
                raise UserError(
                    "a required key is missing",
                    file="params.yaml",
                    key=f"{key}.{needed}",
                    cure="add it: see docs/own-data.md",
                )
        kind, place, path = self.detected
        return CocoLike(
            name=name, kind=kind, dataset_version=VERSION, class_agnostic=False, annotations=str(options.annotations),
            detections=options.detections, locate=lambda image: f"{options.images}/{path(str(image[place]))}", place=place,
        )  # fmt: skip

    def read(self, root: Path) -> Content:
        """Every image that has ground truth."""
        names = {"images", "masks", "annotations", "skip"}
        values = {} if self.options is None else self.options.model_dump(include=names)
        with _keys_of_section(self.name):
            scan = self.source.scan(self.name, root, SourceOptions(archive=self.name, **values))
        if not scan.pairs:
            raise UserError("no image has ground truth", file=root, key=f"benchmarks.{self.name}.index")
        keys = distinct_keys(self.name, [pair.name for pair in scan.pairs], [pair.origin_image for pair in scan.pairs])
        keyed = sorted(zip(keys, scan.pairs, strict=True), key=lambda item: item[0])
        return Content(items=self._items(keyed), n_images=len(keyed))

    @staticmethod
    def _items(keyed: list[tuple[str, Pair]]) -> Iterator[Item]:
        for number, (key, pair) in enumerate(keyed, start=1):
            yield _item(key, number, pair)


@contextlib.contextmanager
def _keys_of_section(name: str) -> Iterator[None]:
    """What a source says about `sources.<name>` is about `benchmarks.<name>.index` here."""

    def here(text: str | None) -> str | None:
        return None if text is None else text.replace(f"sources.{name}", f"benchmarks.{name}.index")

    try:
        yield
    except UserError as error:
        raise UserError(error.problem, file=error.file, key=here(error.key), cure=here(error.cure)) from error


def _item(key: str, number: int, pair: Pair) -> Item:
    try:
        found = probe(read_file(pair.image, "unreadable_image"))
    except ImageError as error:
        raise UserError(f"the image cannot be used: {error}", file=pair.origin_image, key=key, cure=_CURE) from error
    # A mask of the stored size was drawn on a turned photograph as it lies in the file: the index stage stores it so.
    fitting = (found.upright_size, (found.height, found.width))
    objects = list(_objects(key, pair, fitting))
    sizes = {(height, width) for height, width, _, _ in objects}
    if len(sizes) != 1:
        problem = f"the masks of {pair.origin_image} are drawn partly on the turned photograph" if sizes else "no mask"
        raise UserError(problem, file=pair.origin_mask, key=key, cure=_CURE)
    height, width = sizes.pop()
    return Item(
        key=key, path=pair.image, image_id=number, height=height, width=width,
        truths=tuple(truth for _, _, truth, _ in objects),
        prompts=tuple(prompt for _, _, _, prompt in objects if prompt is not None),
    )  # fmt: skip


def _objects(
    key: str, pair: Pair, fitting: tuple[tuple[int, int], ...]
) -> Iterator[tuple[int, int, Truth, Prompt | None]]:
    """Height, width, ground truth and box prompt of each mask, one at a time; an empty mask has no prompt."""
    for place, mask in enumerate(_masks(key, pair, fitting[0])):
        height, width = mask.shape
        if (height, width) not in fitting:
            problem = f"{pair.origin_image} is {fitting[0][1]}x{fitting[0][0]}, its mask {width}x{height}"
            raise UserError(problem, file=pair.origin_mask, key=key, cure=_CURE)
        name, foreground = f"{key}-{place:03d}", mask > FOREGROUND
        truth = Truth(instance_id=name, rle=rle.encode(foreground), area=float(np.count_nonzero(foreground)))
        box = rle.tight_box(foreground)
        yield height, width, truth, None if box is None else box_prompt(f"{name}-box", box, name)


def _masks(key: str, pair: Pair, size: tuple[int, int]) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    try:
        for reference in pair.masks:
            for loaded in reference.load(size):
                yield loaded.mask
    except ImageError as error:
        problem = f"the ground truth of {pair.origin_image} cannot be used: {error}"
        raise UserError(problem, file=pair.origin_mask, key=key, cure=_CURE) from error
