"""Detector result files (COCO results format), read in bounded memory.

The published box files are large: the ViTDet boxes for LVIS are 1.3 GB of JSON. Parsed at once they
would take ten times that; here records are decoded one by one and kept as numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hqsam_base.errors import UserError
from hqsam_base.ids import whole_number
from hqsam_base.json_stream import iterate_list

_CURE = (
    "give a JSON list of COCO results (of a whole COCO file, the list `annotations`); if it is cut "
    "off, fetch it again"
)
_MASKS = (
    "these are results without boxes (final masks?): save the detector's boxes, bbox [x, y, "
    "width, height]"
)


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

    @classmethod
    def none(cls) -> Detections:
        """No detection on any image."""
        whole, real = np.zeros(0, np.int64), np.zeros(0, np.float64)
        return cls(whole, whole, np.zeros((0, 4), np.float64), real)

    def of(self, image_id: int) -> Iterator[tuple[int, tuple[float, float, float, float], float]]:
        """(category, box xyxy, score) of each detection on an image, in the file's order."""
        first, last = np.searchsorted(self.image_ids, [image_id, image_id + 1])
        for i in range(int(first), int(last)):
            x0, y0, x1, y1 = self.boxes[i].tolist()
            yield int(self.categories[i]), (x0, y0, x1, y1), float(self.scores[i])


def read_detections(
    path: Path,
    *,
    image: Callable[[Any], Any] = whole_number,
    category: Callable[[Any], Any] = whole_number,
) -> Detections:
    """Read a result file ``[{image_id, category_id, bbox [x, y, width, height], score}, ...]``; other keys are ignored.

    Args:
        path: The file.
        image: Gives the number of an `image_id`.
        category: Gives the number of a `category_id`.

    Raises:
        UserError: no such file, not a JSON list (truncated?), or a record that lacks a key or holds
            no finite number.
    """
    ids, numbers = array("q"), array("d")
    for place, record in enumerate(iterate_records(path)):
        try:
            x, y, w, h = record["bbox"]
            ids.extend((image(record["image_id"]), category(record["category_id"])))
            numbers.extend(
                (
                    float(x),
                    float(y),
                    float(x) + float(w),
                    float(y) + float(h),
                    float(record["score"]),
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            cure = _MASKS if "segmentation" in record and "bbox" not in record else _CURE
            raise UserError(
                f"bad record: {error!r}", file=path, key=f"record {place}", cure=cure
            ) from error
    whole = np.frombuffer(ids, dtype=np.int64).reshape(-1, 2)
    real = np.frombuffer(numbers, dtype=np.float64).reshape(-1, 5)
    bad = np.flatnonzero(~np.isfinite(real).all(axis=1))
    if bad.size:
        raise UserError(
            "a box or score is not a finite number", file=path, key=f"record {bad[0]}", cure=_CURE
        )
    bad = np.flatnonzero((real[:, 2:4] < real[:, :2]).any(axis=1))
    if bad.size:
        raise UserError(
            "a box has a negative side",
            file=path,
            key=f"record {bad[0]}",
            cure="write bbox as [x, y, width, height]",
        )
    order = np.argsort(whole[:, 0], kind="stable")
    whole, real = whole[order], real[order]
    return Detections(whole[:, 0].copy(), whole[:, 1].copy(), real[:, :4].copy(), real[:, 4].copy())


def iterate_records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON list, decoded one at a time.

    Raises:
        UserError: the file is missing, its top level is not a list, or it ends early.
    """
    return iterate_list(path, problem="not a list of results", cure=_CURE)
