"""Boxes that a detector finds in place of a published result file, kept as one: `benchmarks.<name>.index.prompts`.

``<folder>/results.json`` is a COCO results file; ``<folder>/head.json`` beside it says which
detector made it, how, and from which images. An image whose bytes are others is asked for anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hqsam_base import atomic, rle
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import Box, Content, Item, Kind, Prompt
from hqsam_datasets.benchmarks.cocolike import read_json
from hqsam_datasets.benchmarks.results import Detections, read_detections

Found = tuple[int, Box, float]
"""Category id, box xyxy in pixels, score."""

_SAVE_EVERY = 1000
_LINKED = 0.3
"""IoU from which a box of a frame is taken for the object of the frame before."""


@dataclass(frozen=True)
class Opened:
    """An opened detector.

    Attributes:
        find: Gives the boxes of an image, uint8 [H, W, 3] RGB: index of the category, xyxy, score;
            best first.
        without: Names of categories that it cannot find.
    """

    find: Callable[[npt.NDArray[np.uint8]], Sequence[tuple[int, tuple[float, ...], float]]]
    without: Sequence[str]


class Detector(Protocol):
    """A detector that is opened only when an image needs it; `head` tells it from every other."""

    head: Mapping[str, Any]

    def open(self, names: Sequence[str], *, any_class: bool) -> Opened:
        """See `hqsam.detector.Detector.open`."""
        ...


class Kept:
    """The boxes of one detector on one set, as far as they are known.

    Args:
        detector: The detector.
        categories: Ids and names of the set's categories.
        any_class: Boxes of all classes count, as of the first category.
        parent: Folder in which the set's folder of results is made.
        name: The set.
    """

    def __init__(
        self,
        detector: Detector,
        categories: Mapping[int, str],
        *,
        any_class: bool,
        parent: Path,
        name: str,
    ) -> None:
        self._detector, self._any = detector, any_class
        self._ids, self._names = list(categories), list(categories.values())
        asked = {**detector.head, "categories": categories, "any_class": any_class}
        self.head = json.loads(json.dumps(asked))
        digest = hashlib.sha256(json.dumps(self.head, sort_keys=True).encode()).hexdigest()
        self.folder = parent / f"{name}-{digest[:16]}"
        self._opened: Opened | None = None
        self._records: dict[int, list[Found]] = {}
        self._digests: dict[int, str] = {}
        self.without: list[str] = []
        self._old, self._old_digests = self._read()

    def _read(self) -> tuple[Detections, Mapping[str, str]]:
        if not self.folder.is_dir():
            return Detections.none(), {}
        head = read_json(self.folder / "head.json", dict)
        self.without = [str(name) for name in head.get("without", ())]
        digests = head.get("images")
        found = read_detections(self.folder / "results.json")
        known = isinstance(digests, dict) and np.isin(found.categories, self._ids).all()
        if not known or {key: head.get(key) for key in self.head} != self.head:
            raise UserError(
                "these are not the boxes that its name promises",
                file=self.folder,
                cure="remove the folder; the detector makes it again",
            )
        return found, digests

    def of(self, item: Item, data: bytes, pixels: npt.NDArray[np.uint8]) -> list[Found]:
        """The boxes of an image: kept ones if its bytes are the same."""
        number, digest = item.image_id, hashlib.sha256(data).hexdigest()[:16]
        if self._old_digests.get(str(number)) == digest:
            found = list(self._old.of(number))
        else:
            if self._opened is None:
                self._opened = self._detector.open(self._names, any_class=self._any)
                self.without = list(self._opened.without)
            # As the file has them, so that a run that reads it has the same.
            found = [
                (self._ids[place], _stored(box), round(score, 6))
                for place, box, score in self._opened.find(pixels)
            ]
        # Only now: a run that is stopped in the middle of an image does not know it.
        self._records[number], self._digests[number] = found, digest
        if len(self._records) % _SAVE_EVERY == 0:
            self.save(whole=False)
        return found

    def save(self, *, whole: bool) -> None:
        """Write what is known, if any of it is new.

        Args:
            whole: All images of the set have passed: what is known of others is dropped.
        """
        if self._opened is None:
            return
        for text, digest in () if whole else self._old_digests.items():
            if int(text) not in self._digests:
                self._digests[int(text)] = digest
                self._records[int(text)] = list(self._old.of(int(text)))
        rows = (
            {
                "image_id": number,
                "category_id": category,
                "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                "score": score,
            }
            for number, found in sorted(self._records.items())
            for category, (x0, y0, x1, y1), score in found
        )
        images = {str(number): digest for number, digest in sorted(self._digests.items())}
        with atomic.atomic_folder(self.folder) as folder:
            lines = ",\n".join(json.dumps(row) for row in rows)
            (folder / "results.json").write_text(f"[\n{lines}\n]\n")
            head = {**self.head, "without": self.without, "images": images}
            atomic.write_json(folder / "head.json", head)


def _stored(box: Sequence[float]) -> Box:
    """The box that a reader makes of what is written: corner and size to a hundredth of a pixel."""
    x0, y0 = round(box[0], 2), round(box[1], 2)
    w, h = round(box[2] - x0, 2), round(box[3] - y0, 2)
    return x0, y0, x0 + w, y0 + h


def with_boxes(
    content: Content,
    kept: Kept,
    kind: Kind,
    load: Callable[[Item], tuple[bytes, npt.NDArray[np.uint8]]],
) -> Content:
    """The images with the detector's boxes as prompts.

    In videos the boxes of a frame are linked to those of the frame before (`_Linked`), as their
    metrics want to know which object a mask is of.

    Args:
        content: What the adapter read.
        kept: The boxes.
        kind: By whose rules the set is scored.
        load: Gives the bytes of an image and the pixels that its ground truth fits.
    """

    def items() -> Iterator[Item]:
        linked, whole = _Linked(first_frame=kind == "davis"), False
        try:
            for item in content.items:
                found = kept.of(item, *load(item))
                rows: Sequence[tuple[int | None, Found]] = [(None, one) for one in found]
                if kind in ("ytvis", "davis"):
                    rows = linked.of(item, found)
                prompts = tuple(
                    Prompt(
                        prompt_id=f"{item.key}-{rank:05d}",
                        prompt_set="detector_box",
                        box=box,
                        score=score,
                        category_id=category,
                        track_id=track,
                    )
                    for rank, (track, (category, box, score)) in enumerate(rows)
                )
                yield replace(item, prompts=prompts)
            whole = True
        finally:
            kept.save(whole=whole)

    return replace(content, items=items())


class _Linked:
    """A stand-in for a tracker: a box is the object of the frame before that it overlaps most.

    Args:
        first_frame: The objects are those of the ground truth of a video's first frame, which the
            task gives away (DAVIS); one that no box fits keeps its box. Else every box that fits
            none is a new object.
    """

    def __init__(self, *, first_frame: bool) -> None:
        self._first_frame = first_frame
        self._video: str | None = None
        self._last: dict[int, Found] = {}
        self._next = 0

    def of(self, item: Item, found: Sequence[Found]) -> list[tuple[int | None, Found]]:
        """The boxes of a frame with the number of their object."""
        if item.video != self._video:
            self._video, self._next = item.video, 0
            self._last = _truths(item) if self._first_frame else {}
        links = self._links(found)
        if self._first_frame:
            self._last |= {track: found[place] for place, track in links.items()}
            return [(track, self._last[track]) for track in sorted(self._last)]
        rows: list[tuple[int | None, Found]] = []
        for place, one in enumerate(found):
            track = links.get(place)
            if track is None:
                track, self._next = self._next, self._next + 1
            self._last[track] = one
            rows.append((track, one))
        return rows

    def _links(self, found: Sequence[Found]) -> dict[int, int]:
        """Object by box, best overlap first; of one class, unless classes do not count."""
        tracks = list(self._last)
        overlap = np.array(
            [
                [
                    _iou(self._last[track][1], box)
                    if self._first_frame or self._last[track][0] == category
                    else 0.0
                    for track in tracks
                ]
                for category, box, _ in found
            ]
        ).reshape(len(found), len(tracks))
        links: dict[int, int] = {}
        for flat in np.argsort(-overlap, axis=None, kind="stable").tolist():
            place, column = divmod(flat, len(tracks))
            if overlap[place, column] < _LINKED:
                break
            if place not in links and tracks[column] not in links.values():
                links[place] = tracks[column]
        return links


def _truths(item: Item) -> dict[int, Found]:
    boxes = {}
    for truth in item.truths:
        mask = rle.decode(truth.rle, height=item.height, width=item.width)
        box = rle.tight_box(mask)
        if box is not None and truth.track_id is not None:
            boxes[truth.track_id] = (truth.category_id, box, 1.0)
    return boxes


def _iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)
