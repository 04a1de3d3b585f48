"""What a kind of prompt is, and what all share: arrays for SAM's prompt encoder, columns, marks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hqsam_base import rle

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
BoolMask = NDArray[np.bool_]
Box = tuple[float, float, float, float]

DRAWN_PREFIX = "gt_"
"""A prompt set ``gt_<kind>`` is drawn from the ground-truth masks."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptArrays:
    """What SAM's prompt encoder gets of one prompt: a box, points, a mask, or a mixture.

    Attributes:
        box: xyxy, maxima inclusive, float32 or float64 [4].
        points: (x, y), [N, 2].
        labels: int64 [N]: 1 foreground, 0 background.
        mask: bool [H, W] of the picture's size; or at the size of the model's mask input [m, m],
            uint8 0/255 from a plan, float32 as the decoder is to get it.
    """

    box: NDArray[np.floating] | None = None
    points: NDArray[np.floating] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    mask: BoolMask | U8 | F32 | None = None

    @property
    def signature(self) -> tuple[bool, int, bool]:
        """Order and compare by this: prompts of one signature are embedded together.

        Points padded to one number would move the masks.
        """
        return self.mask is not None, len(self.points), self.box is None


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What a picture shows of a prompt, in its pixels; each painter has a style of its own.

    Attributes:
        boxes: xyxy.
        points: (x, y, label).
        lines: float [N, 2] each, the corners of a polyline.
        masks: bool [H, W] each.
    """

    boxes: tuple[Box, ...] = ()
    points: tuple[tuple[float, float, int], ...] = ()
    lines: tuple[NDArray[np.floating], ...] = ()
    masks: tuple[BoolMask, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Target:
    """The object that a training prompt is drawn for, as a view shows it.

    Attributes:
        shown: soft mask, uint8 [S, S], foreground above 128.
        n_foreground: number of its foreground pixels.
        place: gives the box in the view where the object lies, for one that has vanished in the
            resize.
    """

    shown: U8
    n_foreground: int
    place: Callable[[], tuple[int, int, int, int]]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a kind drew for a view.

    Attributes:
        values: entries of the view's plan; their names are the kind's own.
        pictures: pictures that are kept beside the plan as PNG, uint8 [h, w]; ``noise`` becomes
            ``noise0.png`` for view 0.
        offered: whether the view may be trained with this prompt.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, U8] = field(default_factory=dict)
    offered: bool = True


class PlanOptions(Protocol):
    """The options of `augment` that kinds read."""

    @property
    def image_size(self) -> int:
        """Side of a view in pixels."""
        ...

    @property
    def mask_input_size(self) -> int:
        """Side of the mask prompt in pixels."""
        ...

    @property
    def points(self) -> int:
        """Points of the point prompt."""
        ...

    @property
    def box_noise(self) -> float:
        """Scale of the noise on the box prompt."""
        ...


@dataclass(frozen=True)
class PromptKind(ABC):
    """A kind of prompt: the constant ``PROMPT`` of a file.

    Attributes:
        name: the file's stem, letters and underscores; what a plan's ``prompt`` says.
        in_tables: what the column ``kind`` of ``prompts.parquet`` says.
        content: columns of ``prompts.parquet`` that a row of this kind must have.
        turn: place in the order in which the kinds draw from a view's generator. A new kind draws
            after those that are there, so that theirs stay what they are.
    """

    name: str
    in_tables: str
    content: tuple[str, ...]
    turn: int = 100

    @abstractmethod
    def plan(self, target: Target, *, rng: np.random.Generator, options: PlanOptions) -> Drawn:
        """Draw a training prompt; every random choice comes from `rng`."""

    @abstractmethod
    def planned(self, record: Mapping[str, Any], picture: Callable[[str], U8]) -> PromptArrays:
        """Read what `plan` drew, in pixels of the view.

        Args:
            record: the view's entry of the plan.
            picture: reads a picture of `Drawn.pictures` by its name.

        Raises:
            KeyError: the plan does not have it.
            ValueError: it is damaged.
        """

    @abstractmethod
    def of_mask(self, mask: BoolMask, *, rng: np.random.Generator) -> PromptArrays | None:
        """Draw an evaluation prompt from a ground-truth mask.

        Args:
            mask: bool [H, W].
            rng: every random choice comes from it.

        Returns:
            Pixels of the image; None: this mask gives no such prompt.
        """

    def columns(self, arrays: PromptArrays) -> dict[str, Any]:
        """Write an evaluation prompt as columns of ``prompts.parquet``."""
        box = (None,) * 4 if arrays.box is None else tuple(float(v) for v in arrays.box)
        return {
            "kind": self.in_tables,
            **dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)),
            "points": arrays.points.astype(float).tolist() or None,
            "labels": arrays.labels.tolist() or None,
            "rle": None if arrays.mask is None else rle.encode(arrays.mask.astype(bool)),
        }

    def of_row(self, row: Mapping[str, Any]) -> PromptArrays:
        """Read what `columns` wrote.

        Raises:
            ValueError: nothing is there, or a coordinate is missing.
        """
        corners = [row[name] for name in ("x0", "y0", "x1", "y1")]
        given = [value for value in corners if value is not None]
        points = [(float(x), float(y)) for x, y in row["points"] or ()]
        if (not given and not points and not row["rle"]) or len(given) not in (0, 4):
            raise ValueError(
                f"a {row['kind']!r} prompt without content, or with a coordinate missing"
            )
        size = {"height": row["height"], "width": row["width"]}
        return PromptArrays(
            box=np.array(given, np.float64) if given else None,
            points=np.array(points, np.float64).reshape(-1, 2),
            labels=np.array(row["labels"] or (), np.int64),
            mask=rle.decode(row["rle"], **size) if row["rle"] else None,
        )

    def marks(self, arrays: PromptArrays) -> Marks:
        """Say what a picture shows of the prompt."""
        box: tuple[Box, ...] = ()
        if arrays.box is not None:
            x0, y0, x1, y1 = (float(v) for v in arrays.box)
            box = ((x0, y0, x1, y1),)
        points = tuple(
            (float(x), float(y), int(n))
            for (x, y), n in zip(arrays.points, arrays.labels, strict=True)
        )
        whole = arrays.mask is not None and arrays.mask.dtype == np.bool_
        return Marks(boxes=box, points=points, masks=(arrays.mask.astype(bool),) if whole else ())  # type: ignore[union-attr]
