"""Detector result files (COCO results format), read in bounded memory.

The published box files are large: the ViTDet boxes for LVIS are 1.3 GB of JSON. Parsed at once they would take ten
times that; here records are decoded one by one and kept as numbers.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from hqsam_datasets.errors import UserError

_CHUNK = 1 << 20
_MAX_RECORD = 64 << 20
_SPACE = " \t\r\n"
_CURE = "fetch the file again; it must be a JSON list of COCO results"


@dataclass(frozen=True)
class Detections:
    """The boxes of a result file, ordered by image, then as in the file.

    Attributes:
        image_ids: int64 [n], ascending.
        categories: int64 [n], the detector's class.
        boxes: float64 [n, 4], xyxy in pixels of the original image.
        scores: float64 [n].
    """

    image_ids: npt.NDArray[np.int64]
    categories: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    def of(self, image_id: int) -> Iterator[tuple[int, tuple[float, float, float, float], float]]:
        """(category, box xyxy, score) of each detection on an image, in the file's order."""
        first, last = np.searchsorted(self.image_ids, [image_id, image_id + 1])
        for i in range(int(first), int(last)):
            x0, y0, x1, y1 = self.boxes[i].tolist()
            yield int(self.categories[i]), (x0, y0, x1, y1), float(self.scores[i])


def read_detections(path: Path) -> Detections:
    """Read a result file ``[{image_id, category_id, bbox [x, y, width, height], score}, ...]``; other keys are ignored.

    Raises:
        UserError: no such file, not a JSON list (truncated?), or a record that lacks a key or holds no finite number.
    """
    ids, numbers = array("q"), array("d")
    for place, record in enumerate(iterate_records(path)):
        try:
            x, y, w, h = record["bbox"]
            ids.extend((int(record["image_id"]), int(record["category_id"])))
            numbers.extend((float(x), float(y), float(x) + float(w), float(y) + float(h), float(record["score"])))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"bad record: {error!r}", file=path, key=f"record {place}", cure=_CURE) from error
    whole = np.frombuffer(ids, dtype=np.int64).reshape(-1, 2)
    real = np.frombuffer(numbers, dtype=np.float64).reshape(-1, 5)
    bad = np.flatnonzero(~np.isfinite(real).all(axis=1))
    if bad.size:
        raise UserError("a box or score is not a finite number", file=path, key=f"record {bad[0]}", cure=_CURE)
    order = np.argsort(whole[:, 0], kind="stable")
    whole, real = whole[order], real[order]
    return Detections(whole[:, 0].copy(), whole[:, 1].copy(), real[:, :4].copy(), real[:, 4].copy())


def iterate_records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON list, decoded one at a time.

    Raises:
        UserError: the file is missing, its top level is no list, or it ends early.
    """
    try:
        with path.open(encoding="utf-8") as file:
            yield from _Scanner(path, file).records()
    except FileNotFoundError:
        raise UserError("the file does not exist", file=path, cure="fetch the archive again") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not a text file: {error}", file=path, cure=_CURE) from error


class _Scanner:
    """Walks a JSON list in a sliding window over the file."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._text = ""
        self._at = 0
        self._count = 0
        self._decode = json.JSONDecoder().raw_decode

    def records(self) -> Iterator[Mapping[str, Any]]:
        if self._next_character() != "[":
            raise self._wrong("the top level is not a list")
        self._at += 1
        if self._next_character() != "]":
            yield self._record()
            while self._next_character() == ",":
                self._at += 1
                self._next_character()
                yield self._record()
        if self._next_character() != "]":
            raise self._wrong("the list is not closed")
        self._at += 1
        if self._next_character():
            raise self._wrong("something follows the list")

    def _record(self) -> Mapping[str, Any]:
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # A number at the window's end may go on behind it; objects, which records are, cannot.
                if not isinstance(value, dict):
                    raise self._wrong(f"record {self._count} is not an object")
            except ValueError as error:
                if len(self._text) - self._at > _MAX_RECORD or not self._more():
                    raise self._wrong(f"record {self._count} is damaged or cut off: {error}") from error
            else:
                self._at = end
                self._count += 1
                return value

    def _next_character(self) -> str:
        """The next character that is no space, without taking it; empty at the file's end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        chunk = self._file.read(_CHUNK)
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _wrong(self, problem: str) -> UserError:
        return UserError(f"not a list of results: {problem}", file=self._path, cure=_CURE)
