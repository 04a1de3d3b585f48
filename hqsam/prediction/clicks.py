"""Interactive segmentation: each next click goes where a system's own mask is wrong, as a person would set it.

The first click is the middle of the object. Each further one is the middle of the largest error
region (`hqsam_base.centre.next_click`), positive where the object is missed, negative
where the mask goes beyond it. All clicks so far are given, and, as in SAM's protocol, the
low-resolution logits of the prediction before go back in, where the system has such
(`Promptable.as_input`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hqsam.prediction.postprocess import MaskPatch
from hqsam.prediction.prompt import Prompt
from hqsam.systems import Promptable
from hqsam_base.centre import next_click

Row = Mapping[str, Any]
OnDevice = Callable[[], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, eq=False)
class Clicked:
    """An object that is clicked at.

    Attributes:
        rows: rows of ``prompts.parquet``, one for each click, in their order; all hold the first one.
        mask: bool [H, W], the object.
    """

    rows: Sequence[Row]
    mask: npt.NDArray[np.bool_]


@dataclass(eq=False)
class _Track:
    """One object under one system: its clicks so far, and what the last prediction left."""

    target: Clicked
    points: list[tuple[float, float]]
    labels: list[int]
    system: str = ""
    logits: npt.NDArray[np.float32] | None = None
    patch: MaskPatch | None = None
    iou: float = 0.0
    done: bool = field(default=False)

    def prompt(self) -> Prompt:
        return Prompt(points=tuple(self.points), labels=tuple(self.labels), mask_input=self.logits)

    def predicted(self, one: Promptable, image: Any, values: Any, iou: float) -> None:
        self.patch, self.iou = one.to_image(image, values), iou
        self.logits = one.as_input(values)

    def click(self) -> None:
        """Set the next click; none if the mask is the object."""
        assert self.patch is not None
        found = next_click(pred=self.patch.full(), target=self.target.mask)
        self.done = found is None
        if found is not None:
            (x, y), positive = found
            self.points.append((float(x), float(y)))
            self.labels.append(int(positive))


def of_rows(rows: Sequence[Row], masks: Mapping[str, npt.NDArray[np.bool_]]) -> list[Clicked]:
    """Gather the rows of one interactive set in an image by their objects.

    Args:
        rows: their ids end in `~1`, `~2`, ...
        masks: by instance id.
    """
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(str(row["prompt_id"]).rpartition("~")[2])):
        found.setdefault(str(row["instance_id"]), []).append(row)
    return [Clicked(of_one, masks[name]) for name, of_one in found.items()]


def predictions(
    one: Promptable,
    image: Any,
    targets: Sequence[Clicked],
    *,
    per_pass: int,
    on_device: OnDevice = contextlib.nullcontext,
) -> Iterator[tuple[Row, str, MaskPatch, float]]:
    """Click at some objects of an image until their clicks are used up.

    Args:
        one: the opened model; each of its systems has its own clicks.
        image: what it made of the image.
        targets: the objects, all of one number of clicks.
        per_pass: prompts of one decoder call.
        on_device: entered around each decoder call.

    Yields:
        Row of ``prompts.parquet``, system, mask after that click, predicted IoU. A mask that is
        equal to the object stays as it is.
    """
    starts = [Prompt.from_row(target.rows[0]) for target in targets]
    tracks = [
        _Track(target, list(start.points), list(start.labels))
        for target, start in zip(targets, starts, strict=True)
    ]
    tracks = list(_first(one, image, tracks, per_pass, on_device))
    for number in range(len(targets[0].rows)):
        if number:
            for track in (track for track in tracks if not track.done):
                track.click()
            open_ones = [track for track in tracks if not track.done]
            for some in _passes(open_ones, per_pass):
                with on_device():
                    decoded = one.decode(image, [track.prompt() for track in some])
                for place, track in enumerate(some):
                    mine = decoded[track.system]
                    track.predicted(one, image, mine.values[place], mine.iou[place])
        for track in tracks:
            assert track.patch is not None
            yield track.target.rows[number], track.system, track.patch, track.iou


def _first(
    one: Promptable, image: Any, tracks: Sequence[_Track], per_pass: int, on_device: OnDevice
) -> Iterator[_Track]:
    """The first click is one for all systems; what each makes of it is its own."""
    for some in _passes(tracks, per_pass):
        with on_device():
            decoded = one.decode(image, [track.prompt() for track in some])
        for system, mine in decoded.items():
            for place, track in enumerate(some):
                own = _Track(track.target, list(track.points), list(track.labels), system)
                own.predicted(one, image, mine.values[place], mine.iou[place])
                yield own


def _passes(tracks: Sequence[_Track], per_pass: int) -> Iterator[Sequence[_Track]]:
    for start in range(0, len(tracks), per_pass):
        yield tracks[start : start + per_pass]
