"""One prompt, checked when it is made, and the embedding of many.

Coordinates are pixels of the original image: points (x, y), boxes xyxy. Shape letters: P prompts; m
side of a mask input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hqsam.errors import InputError
from hqsam.model import prompt_inputs
from hqsam.model.hq_decoder import Prompts
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import MaskEncoding
from hqsam.model.preprocess import BoolMask, Frame
from hqsam.model.tensor_input import check_logits
from hqsam_base.errors import UserError
from hqsam_datasets import prompts as kinds
from hqsam_datasets.prompts.base import PromptArrays

_XY = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Prompt:
    """What to segment: a box, points, a coarse mask, or any mixture of them for one object.

    Arrays and lists of numbers are taken, too.

    Attributes:
        box: xyxy. Corners are inclusive pixels, so ``x0 == x1`` is a box one pixel wide.
        points: (x, y) each.
        labels: Per point: 1 foreground, 0 background.
        mask: bool ``[H, W]`` of the original size; brought to the decoder's mask input by
            ``Frame.mask_prompt``.
        mask_input: float logits ``[m, m]``, given to the decoder as it is (``SamPredictor``'s
            ``mask_input``); not with
            ``mask``.

    Raises:
        InputError: Nothing given, a coordinate that is not finite, a reversed box, points and
            labels of different number, unknown labels, or a mask input that is no logits.
    """

    box: tuple[float, float, float, float] | None = None
    points: tuple[_XY, ...] = ()
    labels: tuple[int, ...] = ()
    mask: BoolMask | None = None
    mask_input: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        self._normalise()
        problem = self._problem()
        if problem:
            raise InputError(f"prompt: {problem}")

    def _normalise(self) -> None:
        """Arrays to the tuples that the attributes promise."""
        try:
            points = tuple((float(x), float(y)) for x, y in self.points)
            box = None if self.box is None else tuple(float(v) for v in self.box)
            labels = tuple(float(n) for n in self.labels)
            low = None if self.mask_input is None else np.asarray(self.mask_input)
        except (TypeError, ValueError) as error:
            raise InputError(
                "prompt: not numbers: a box is x0 y0 x1 y1, a point x y, a label 1 or 0"
            ) from error
        if set(labels) <= {0.0, 1.0}:
            labels = tuple(int(n) for n in labels)
        if low is not None:
            check_logits(low)
            low = low.astype(np.float32)
        mask = None if self.mask is None else np.asarray(self.mask)
        values = {"points": points, "box": box, "labels": labels, "mask": mask, "mask_input": low}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _problem(self) -> str | None:
        if self.box is None and not self.points and self.mask is None and self.mask_input is None:
            return "neither box nor points nor mask"
        if self.mask is not None and self.mask_input is not None:
            return "both a mask of the image's size and a low-resolution mask input"
        if self.mask is not None and (self.mask.dtype != np.bool_ or self.mask.ndim != 2):
            return f"the mask is {self.mask.dtype} {list(self.mask.shape)}, not bool [H, W]"
        if self.box is not None:
            if len(self.box) != 4 or not all(_finite(v) for v in self.box):
                return f"the box {list(self.box)} is not four finite numbers"
            if self.box[2] < self.box[0] or self.box[3] < self.box[1]:
                return (
                    f"the box {list(self.box)} is reversed (x0 y0 x1 y1 with x0 <= x1 and y0 <= y1 "
                    f"is expected)"
                )
        if len(self.points) != len(self.labels):
            return (
                f"{len(self.points)} points and {len(self.labels)} labels (1 foreground, 0 "
                f"background)"
            )
        if not all(len(p) == 2 and _finite(p[0]) and _finite(p[1]) for p in self.points):
            return "a point is not a finite pair (x, y)"
        if not set(self.labels) <= {0, 1}:
            return f"labels {sorted(set(self.labels) - {0, 1})}; 1 is foreground, 0 is background"
        return None

    @property
    def signature(self) -> tuple[bool, int, bool, bool]:
        """Prompts of one signature can be embedded together; padding points to one number would change the result."""
        return (
            self.box is not None,
            len(self.points),
            self.mask is not None,
            self.mask_input is not None,
        )

    def check_inside(self, frame: Frame) -> None:
        """Refuse what lies wholly outside an image; a box that only sticks out is used as it is, like SAM does.

        Raises:
            InputError: Box without a common pixel, point outside, mask of another size.
        """
        size = f"the image of {frame.width} x {frame.height} pixels"
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if x1 < 0 or y1 < 0 or x0 > frame.width or y0 > frame.height:
                raise InputError(f"prompt: the box {list(self.box)} lies outside {size}")
        for x, y in self.points:
            if not (0 <= x <= frame.width and 0 <= y <= frame.height):
                raise InputError(f"prompt: the point ({x:g}, {y:g}) lies outside {size}")
        if self.mask is not None and self.mask.shape != (frame.height, frame.width):
            raise InputError(
                f"prompt: the mask is {self.mask.shape[1]} x {self.mask.shape[0]}, not of {size}"
            )

    def in_frame(self, frame: Frame, *, side: int, mask_encoding: MaskEncoding) -> PromptArrays:
        """Bring the prompt into the input frame.

        Args:
            frame: The image's place in the input square.
            side: m, of the decoder's mask input.
            mask_encoding: What a ``mask`` becomes.

        Raises:
            InputError: A mask input of a wrong size.
        """
        if self.mask_input is not None and self.mask_input.shape != (side, side):
            raise InputError(
                f"prompt: a mask input is {self.mask_input.shape}, the model takes ({side}, {side})"
            )
        mask = self.mask_input
        if self.mask is not None:
            mask = frame.mask_prompt(self.mask, side=side, encoding=mask_encoding)
        return PromptArrays(
            box=None if self.box is None else frame.boxes(np.array(self.box, np.float64)),
            points=frame.points(np.array(self.points, np.float64).reshape(-1, 2)),
            labels=np.array(self.labels, np.int64),
            mask=mask,
        )

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> Prompt:
        """A row of ``prompts.parquet``.

        Raises:
            InputError: Naming the prompt's id and the image's key.
        """
        try:
            given = kinds.of_row(row)
            return Prompt(
                box=None if given.box is None else tuple(given.box.tolist()),
                points=tuple(map(tuple, given.points.tolist())),
                labels=tuple(given.labels.tolist()),
                mask=given.mask,  # type: ignore[arg-type]
            )
        except (UserError, ValueError) as error:
            problem = error.problem if isinstance(error, UserError) else f"prompt: {error}"
            raise InputError(
                f"{problem} ({row['prompt_id']})",
                key=row["key"],
                cure="correct the benchmark's prompt file",
            ) from error


def _finite(value: float) -> bool:
    return bool(np.isfinite(value))


def embed(
    model: HQSam, frame: Frame, prompts: Sequence[Prompt], *, mask_encoding: MaskEncoding
) -> Prompts:
    """Embed prompts of one signature.

    Args:
        model: Whose prompt encoder to use.
        frame: The image's place in the input square.
        prompts: P of them.
        mask_encoding: What a ``mask`` becomes.

    Returns:
        Sparse and dense embeddings.

    Raises:
        InputError: A mask input of a wrong size.
    """
    side = model.backbone.mask_size
    return prompt_inputs.embed(
        model,
        [prompt.in_frame(frame, side=side, mask_encoding=mask_encoding) for prompt in prompts],
    )
