"""DAVIS 2017 val: 30 sequences at 480p, semi-supervised.

Source: Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation; BSD-style licence
on the site. Layout: `DAVIS/JPEGImages/480p/<sequence>/%05d.jpg`,
`DAVIS/Annotations/480p/<sequence>/%05d.png` (palette index = object, 255 = void),
`DAVIS/ImageSets/2017/val.txt`. Prompts: boxes of XMem's masks, per object and frame, from its
indexed PNGs `<sequence>/%05d.png`. Objects are those of the first annotated frame; the first and
the last frame are not scored, but they are predicted. Known bad files: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_base.texts import read_names
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Prompt, Truth
from hqsam_datasets.benchmarks.common import pairs
from hqsam_datasets.fetch.tree import below, found_below, list_files, missing_files, packed_inside
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.masks import decode_labels
from hqsam_datasets.sample import make_key

VOID = 255
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Davis:
    """The val part of DAVIS 2017; `boxes`: those of the published masks are read."""

    name: str = "davis"
    kind: Kind = "davis"
    dataset_version: str = "DAVIS 2017 val 480p"
    class_agnostic: bool = True
    boxes: bool = True

    def without_boxes(self) -> Self:
        """See `hqsam_datasets.benchmarks.base.Benchmark`."""
        return replace(self, boxes=False)

    def read(self, root: Path) -> Content:
        """Every frame of every sequence of val.txt with XMem's boxes on it."""
        listed = "ImageSets/2017/val.txt"
        names = found_below(root, listed, depth=4)
        davis = names.parents[2]
        # A list may name a sequence twice: it is there once, as in the official program.
        sequences = sorted(dict.fromkeys(read_names(names)), key=lambda s: make_key("", s))
        n_images = sum(
            len(list_files(below(davis, f"JPEGImages/480p/{s}"), [".jpg"])) for s in sequences
        )
        return Content(items=self._items(root, davis, sequences), n_images=n_images)

    def _items(self, root: Path, davis: Path, sequences: list[str]) -> Iterator[Item]:
        number = 0
        for video, sequence in enumerate(sequences, start=1):
            results = _results(root, davis, sequence) if self.boxes else None
            frames = pairs(
                below(davis, f"JPEGImages/480p/{sequence}"),
                below(davis, f"Annotations/480p/{sequence}"),
            )
            # By file name and not by stem, as the official program: `img-1.png` comes before
            # `img.png`.
            frames.sort(key=lambda frame: frame[2].name)
            for frame, (stem, image, annotation) in enumerate(frames):
                number += 1
                key = make_key(self.name, f"{sequence}-{stem}")
                labels = _labels(annotation)
                yield Item(
                    key=key,
                    path=image,
                    image_id=number,
                    height=labels.shape[0],
                    width=labels.shape[1],
                    video=sequence,
                    video_id=video,
                    frame=frame,
                    truths=tuple(
                        Truth(
                            instance_id=f"{key}-{number:03d}",
                            rle=rle.encode(labels == number),
                            area=float((labels == number).sum()),
                            track_id=number,
                        )
                        for number in _objects(labels)
                    ),
                    prompts=()
                    if results is None
                    else tuple(_prompts(key, labels.shape, results / f"{stem}.png")),
                )


def _results(root: Path, davis: Path, sequence: str) -> Path | None:
    """The folder with a sequence's prompts; None if their optional archive is unavailable."""
    found = sorted(p for p in root.rglob(sequence) if p.is_dir() and davis not in p.parents)
    if not found and missing_files(root):
        return None
    if len(found) != 1:
        places = "".join(f" {p.relative_to(root).as_posix()}" for p in found)
        problem = (
            f"{len(found)} result folders for sequence {sequence}, one "
            f"expected{':' if found else ''}{places}"
        )
        cure = packed_inside(root) or (
            "pack the tracker's indexed PNGs once, as <sequence>/00000.png, ..., in "
            "xmem_results.zip"
        )
        raise UserError(problem, file=root, key=sequence, cure=cure)
    return found[0]


def _labels(path: Path) -> Labels:
    try:
        return decode_labels(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            "the label image does not exist", file=path, cure="fetch the archive again"
        ) from None
    except ImageError as error:
        raise UserError(f"the label image cannot be used: {error}", file=path) from error


def _objects(labels: Labels) -> list[int]:
    return [int(v) for v in np.unique(labels) if v not in (0, VOID)]


def _prompts(key: str, size: tuple[int, ...], path: Path) -> Iterator[Prompt]:
    labels = _labels(path)
    if labels.shape != size:
        raise UserError(f"result {labels.shape} and annotation {size} differ", file=path)
    for number in _objects(labels):
        box = rle.tight_box(labels == number)
        if box is not None:
            yield Prompt(
                prompt_id=f"{key}-{number:03d}",
                prompt_set="tracker_box",
                box=box,
                score=1.0,
                category_id=1,
                track_id=number,
            )


BENCHMARK = Davis()
