"""Own evaluation sets: read like own training sources, each object prompted by its ground-truth box.

With detections beside a COCO or LVIS file, the set is scored like COCO or LVIS instead
(`own_detected`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import BenchmarkOptions, Content, Item, Kind, Prompt, Truth
from hqsam_datasets.benchmarks.common import box_prompt
from hqsam_datasets.benchmarks.own_detected import (
    NO_MASK,
    VERSION,
    DetectedSet,
    keys_of_section,
    source_options,
)
from hqsam_datasets.formats.ground_truth import NO_ANNOTATIONS
from hqsam_datasets.formats.image_files import ImageError, probe
from hqsam_datasets.formats.masks import FOREGROUND
from hqsam_datasets.keys import distinct_keys
from hqsam_datasets.prompts.sets import mask_set
from hqsam_datasets.sources.base import LabelMap, MaskFile, MaskRef, Pair, Source, read_file

_CURE = "fix the file, or list it under index.skip: evaluation leaves nothing out by itself"
_LEFT_OUT = {
    "crowd": "crowds",
    "no_object": "images without object",
    "no_mask": NO_MASK,
    "known_bad": "listed in skip",
}


@dataclass(frozen=True, kw_only=True)
class OwnSet:
    """An own set; `of_section` gives it the name and the options of a section of params.yaml.

    Attributes:
        source: Reads the archive.
        detected: What detections make it: `coco`, `lvis`; None: its files cannot have detections.
        options: `benchmarks.<name>.index`; None: of no section yet.
    """

    name: str
    source: Source
    detected: Literal["coco", "lvis"] | None = None
    options: BenchmarkOptions | None = None
    kind: Kind = "masks"
    dataset_version: str = VERSION
    class_agnostic: bool = True

    def of_section(self, name: str, options: BenchmarkOptions) -> OwnSet | DetectedSet:
        """The set that `benchmarks.<name>` describes.

        Raises:
            UserError: a key is missing, or means nothing for these files.
        """
        _check_keys(name, self.name, options, annotated=self.detected is not None)
        if self.detected is None or (options.detections is None and options.prompts is None):
            return replace(self, name=name, options=options)
        return DetectedSet(name=name, kind=self.detected, options=options)

    def read(self, root: Path) -> Content:
        """Every image that has ground truth."""
        with keys_of_section(self.name):
            scan = self.source.scan(self.name, root, source_options(self.name, self.options))
        bad = [reject for reject in scan.rejects if reject["reason"] not in _LEFT_OUT]
        if bad:
            problem = f"{len(bad)} annotations cannot be used; the first: {bad[0]['detail']}"
            raise UserError(
                problem, file=bad[0]["origin"], key=f"benchmarks.{self.name}.index", cure=_CURE
            )
        if not scan.pairs:
            why = {reject["reason"] for reject in scan.rejects}
            crowds = "crowd" in why and why <= {"crowd", "no_object"}
            cure = "set iscrowd to 0 if the crowd regions are objects" if crowds else None
            if why == {"no_object"}:
                cure = NO_ANNOTATIONS
            raise UserError(
                "no image has ground truth",
                file=root,
                key=f"benchmarks.{self.name}.index",
                cure=cure,
            )
        keys = distinct_keys(
            self.name,
            [pair.name for pair in scan.pairs],
            [pair.origin_image for pair in scan.pairs],
        )
        keyed = sorted(zip(keys, scan.pairs, strict=True), key=lambda item: item[0])
        items = (_item(key, number, pair) for number, (key, pair) in enumerate(keyed, start=1))
        return Content(
            items=items,
            n_images=len(keyed),
            left_out=Counter(_LEFT_OUT[r["reason"]] for r in scan.rejects),
        )


def _check_keys(name: str, kind: str, options: BenchmarkOptions, *, annotated: bool) -> None:
    """Each kind of files has keys of its own, and prompts follow from whether there are detections."""
    section = f"benchmarks.{name}.index"
    for key in ("masks",) if annotated else ("annotations", "detections", "prompts"):
        if getattr(options, key) is not None:
            raise UserError(
                f"kind {kind} has no {key}",
                file="params.yaml",
                key=f"{section}.{key}",
                cure="remove it, or say the kind of your files: folder, label_maps, coco_json, "
                "lvis_json",
            )
    if annotated and options.annotations is None:
        cure = "name the annotation file inside the archive"
        raise UserError(
            "a required key is missing", file="params.yaml", key=f"{section}.annotations", cure=cure
        )
    named = {name for name in options.prompt_sets if mask_set(name) is None}
    detected = options.detections is not None or options.prompts is not None
    if named != ({"detector_box"} if detected else set()):
        only = "the detections" if detected else "made from the ground truth"
        wanted = "detector_box" if detected else "gt_box"
        cure = f"say prompt_sets: [{wanted}]" + (
            ", or name detections, or a detector under prompts"
            if annotated and wanted == "gt_box"
            else ""
        )
        raise UserError(
            f"its prompts are {only}", file="params.yaml", key=f"{section}.prompt_sets", cure=cure
        )


def _item(key: str, number: int, pair: Pair) -> Item:
    try:
        found = probe(read_file(pair.image, "unreadable_image"))
    except ImageError as error:
        raise UserError(
            f"the image cannot be used: {error}", file=pair.origin_image, key=key, cure=_CURE
        ) from error
    # A mask of the stored size was drawn on a turned photograph as it lies in the file: the index
    # stage stores it so.
    fitting = (found.upright_size, (found.height, found.width))
    objects = list(_objects(key, pair, fitting))
    sizes = {(height, width) for height, width, _, _ in objects}
    if len(sizes) != 1:
        problem = (
            f"the masks of {pair.origin_image} are drawn partly on the turned photograph"
            if sizes
            else "no mask"
        )
        raise UserError(problem, file=pair.origin_mask, key=key, cure=_CURE)
    height, width = sizes.pop()
    return Item(
        key=key,
        path=pair.image,
        image_id=number,
        height=height,
        width=width,
        truths=tuple(truth for _, _, truth, _ in objects),
        prompts=tuple(prompt for _, _, _, prompt in objects if prompt is not None),
    )


def _objects(
    key: str, pair: Pair, fitting: tuple[tuple[int, int], ...]
) -> Iterator[tuple[int, int, Truth, Prompt | None]]:
    """Height, width, ground truth and box prompt of each mask, one at a time; an empty mask has no prompt."""
    for place, (reference, mask) in enumerate(_masks(key, pair, fitting[0])):
        height, width = mask.shape
        if (height, width) not in fitting:
            problem = (
                f"{pair.origin_image} is {fitting[0][1]}x{fitting[0][0]}, its mask {width}x{height}"
            )
            raise UserError(problem, file=_file_of(reference, pair), key=key, cure=_CURE)
        name, foreground = f"{key}-{place:03d}", mask > FOREGROUND
        truth = Truth(
            instance_id=name, rle=rle.encode(foreground), area=float(np.count_nonzero(foreground))
        )
        box = rle.tight_box(foreground)
        yield height, width, truth, None if box is None else box_prompt(f"{name}-box", box, name)


def _masks(
    key: str, pair: Pair, size: tuple[int, int]
) -> Iterator[tuple[MaskRef, np.ndarray[Any, np.dtype[np.uint8]]]]:
    for reference in pair.masks:
        try:
            for loaded in reference.load(size):
                yield reference, loaded.mask
        except ImageError as error:
            problem = f"the ground truth of {pair.origin_image} cannot be used: {error}"
            raise UserError(problem, file=_file_of(reference, pair), key=key, cure=_CURE) from error


def _file_of(reference: MaskRef, pair: Pair) -> Path | str:
    """The file with a mask: of several of an image, the one that is meant."""
    return reference.path if isinstance(reference, MaskFile | LabelMap) else pair.origin_mask
