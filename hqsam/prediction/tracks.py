"""A stand-in tracker that follows a system's own masks: each frame's box is that of the mask in the frame before.

The first box of an object is the ground truth's, as in semi-supervised video segmentation. Each
system follows its own masks, and an object whose mask is empty keeps its last box. No memory, no
motion model: a weak tracker, the same for every system.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hqsam.prediction.postprocess import MaskPatch
from hqsam.prediction.prompt import Prompt
from hqsam.systems import Promptable
from hqsam_datasets.prompts.box import mask_box

Row = Mapping[str, Any]
Box = tuple[float, float, float, float]
OnDevice = Callable[[], contextlib.AbstractContextManager[None]]


class Tracks:
    """The last boxes of all objects of one video under each system of one opened model; frames come in their order."""

    def __init__(self) -> None:
        self._video: str | None = None
        self._systems: list[str] = []
        self._boxes: dict[tuple[str, int], Box] = {}

    def predictions(
        self,
        one: Promptable,
        image: Any,
        video: str | None,
        rows: Sequence[Row],
        *,
        per_pass: int,
        on_device: OnDevice = contextlib.nullcontext,
    ) -> Iterator[tuple[Row, str, MaskPatch, float]]:
        """Predict the objects of a frame where each system saw them last.

        Args:
            one: the opened model.
            image: what it made of the frame.
            video: the frame's; another one than before begins anew.
            rows: of ``prompts.parquet``, one for each object, all with the object's first box.
            per_pass: prompts of one decoder call.
            on_device: entered around each decoder call.

        Yields:
            Row, system, mask, predicted IoU.
        """
        if video != self._video:
            self._video, self._boxes = video, {}
        done: dict[tuple[Box, ...], Mapping[str, list[tuple[MaskPatch, float]]]] = {}

        def masks(boxes: tuple[Box, ...]) -> Mapping[str, list[tuple[MaskPatch, float]]]:
            if boxes not in done:
                done[boxes] = _decoded(one, image, boxes, per_pass, on_device)
            return done[boxes]

        if not self._systems:
            self._systems = list(masks(tuple(self._box("", row) for row in rows)))
        for system in self._systems:
            boxes = tuple(self._box(system, row) for row in rows)
            for row, (patch, iou) in zip(rows, masks(boxes)[system], strict=True):
                found = mask_box(patch.full().astype(np.uint8) * 255)
                if found is not None:
                    x0, y0, x1, y1 = map(float, found)
                    self._boxes[system, int(row["track_id"])] = (x0, y0, x1, y1)
                yield row, system, patch, iou

    def _box(self, system: str, row: Row) -> Box:
        first: Box = (row["x0"], row["y0"], row["x1"], row["y1"])
        return self._boxes.get((system, int(row["track_id"])), first)


def _decoded(
    one: Promptable, image: Any, boxes: Sequence[Box], per_pass: int, on_device: OnDevice
) -> dict[str, list[tuple[MaskPatch, float]]]:
    """Masks and predicted IoUs of some boxes, by system, in their order."""
    prompts = [Prompt(box=box) for box in boxes]
    found: dict[str, list[tuple[MaskPatch, float]]] = {}
    for start in range(0, len(prompts), per_pass):
        with on_device():
            decoded = one.decode(image, prompts[start : start + per_pass])
        for system, mine in decoded.items():
            made = [one.to_image(image, values) for values in mine.values]
            found.setdefault(system, []).extend(zip(made, mine.iou, strict=True))
    return found
