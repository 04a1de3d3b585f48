"""The box prompt: the extreme pixels of the object, maxima inclusive; with noise on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base import rle
from hqsam_datasets.formats.masks import FOREGROUND
from hqsam_datasets.prompts.base import (
    U8,
    BoolMask,
    Box,
    Drawn,
    PlanOptions,
    PromptArrays,
    PromptKind,
    Target,
)


def mask_box(mask: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Find the extreme pixels above 128, maxima inclusive.

    Args:
        mask: [H, W], values 0..255, integer or float.

    Returns:
        (x0, y0, x1, y1) in pixels, or None for an empty mask (the official code gives 1e8, 1e8, 0,
        0).

    Source: SysCV/sam-hq, train/utils/misc.py, `masks_to_boxes`.
    """
    foreground = mask > FOREGROUND
    columns, rows = np.flatnonzero(foreground.any(axis=0)), np.flatnonzero(foreground.any(axis=1))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def noisy_box(box: Box, *, scale: float, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """Jitter a box as DN-DETR does.

    The centre moves by up to `scale` x half the size, the size changes by up to `scale` x itself.

    Args:
        box: xyxy in pixels.
        scale: 0 leaves the box as it is; the paper's robustness table uses 0.2 and 0.4.
        size: (height, width) of the picture; the result is clamped to [0, width] x [0, height].
        rng: draws four uniform numbers: centre x, y, width, height.

    Returns:
        xyxy in pixels.

    Source: SysCV/sam-hq, train/utils/misc.py, `box_noise`; paper, Table 13.
    """
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    shift_x, shift_y, grow_x, grow_y = rng.uniform(-1.0, 1.0, size=4) * scale
    centre_x = (x0 + x1) / 2 + shift_x * width / 2
    centre_y = (y0 + y1) / 2 + shift_y * height / 2
    half_width, half_height = width * (1 + grow_x) / 2, height * (1 + grow_y) / 2
    return (
        float(np.clip(centre_x - half_width, 0, size[1])),
        float(np.clip(centre_y - half_height, 0, size[0])),
        float(np.clip(centre_x + half_width, 0, size[1])),
        float(np.clip(centre_y + half_height, 0, size[0])),
    )


class BoxPrompt(PromptKind):
    """See the module."""

    def plan(self, target: Target, *, rng: np.random.Generator, options: PlanOptions) -> Drawn:
        """Take the box of the visible foreground; of a thin object that has vanished, its place."""
        x0, y0, x1, y1 = mask_box(target.shown) or target.place()
        box: Box = (float(x0), float(y0), float(x1), float(y1))
        if options.box_noise:
            size = (options.image_size, options.image_size)
            box = noisy_box(box, scale=options.box_noise, size=size, rng=rng)
        return Drawn(values={"box": list(box)})

    def planned(self, record: Mapping[str, Any], picture: Callable[[str], U8]) -> PromptArrays:
        """Read the plan's ``box``."""
        return PromptArrays(box=np.asarray(record["box"], np.float32).reshape(4))

    def of_mask(self, mask: BoolMask, *, rng: np.random.Generator) -> PromptArrays | None:
        """Take the tight box."""
        box = rle.tight_box(mask)
        return None if box is None else PromptArrays(box=np.array(box, np.float64))


PROMPT = BoxPrompt("box", "box", ("x0",), turn=2)
