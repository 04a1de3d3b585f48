"""Checks of what users of ``SamHQPredictor`` hand in: what makes sense is taken, what could give a silently wrong mask is refused.

Shape letters: N points; S input side; m side of low-resolution masks; H, W original image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hqsam_datasets.images import MAX_PIXELS
from torch import Tensor

from hqsam.errors import InputError
from hqsam.prompting import Frame
from hqsam.prompts import Prompt


def check_image(image: Any) -> npt.NDArray[np.uint8]:
    """An image as the model takes it: uint8 ``[H, W, 3]``.

    Grey images (``[H, W]``, ``[H, W, 1]``) are replicated and an alpha channel is dropped, as the data pipeline does.

    Raises:
        InputError: Not an array of 8-bit pixels, empty, or too large. Floats and 16-bit pixels are refused because
            their range is unknown.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"the image is a {type(image).__name__}", cure="give a numpy array, uint8 [H, W, 3]")
    if image.dtype != np.uint8:
        raise InputError(f"the image's pixels are {image.dtype}", cure="scale them to 0..255 and convert to uint8")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InputError(f"the image has the shape {list(image.shape)}", cure="give [H, W, 3]")
    if image.size == 0:
        raise InputError(f"the image is empty ({image.shape[1]} x {image.shape[0]} pixels)")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise InputError(f"the image has more than {MAX_PIXELS:,} pixels", cure="tile it or make it smaller")
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]


def check_transformed(image_13hw: Tensor, original_size: tuple[int, int], side: int) -> None:
    """An image that the user resized.

    Args:
        image_13hw: Values 0..255, longest side S.
        original_size: (H, W) before resizing.
        side: S.

    Raises:
        InputError: Another shape, another aspect than the original's, values that are not finite or not 0..255.
    """
    shape = list(image_13hw.shape)
    if len(shape) != 4 or shape[:2] != [1, 3] or max(shape[2:]) != side:
        raise InputError(f"the transformed image has the shape {shape}", cure=f"[1, 3, h, w], long side {side}")
    if min(original_size) < 1 or Frame(*original_size, side).resized != tuple(shape[2:]):
        raise InputError(
            f"the transformed image is {shape[3]} x {shape[2]}, which an original of {original_size[1]} x "
            f"{original_size[0]} does not become",
            cure="give (height, width) of the image before resizing",
        )
    if image_13hw.is_floating_point():
        _check_float_pixels(image_13hw)


def _check_float_pixels(image: Tensor) -> None:
    if not bool(image.isfinite().all()):
        raise InputError("the transformed image has values that are not finite")
    low, high = float(image.min()), float(image.max())
    # Whole numbers up to 1 are a very dark picture; fractions are a picture scaled to 0..1.
    scaled = high <= 1 and bool((image != image.round()).any())
    if low < 0 or high > 255 or scaled:
        raise InputError(f"the transformed image has values from {low:g} to {high:g}", cure="give values 0..255")


def checked_prompt(coords: Any, labels: Any, box: Any, mask_input: Any) -> Prompt:
    """The arguments of ``SamPredictor.predict`` as a checked prompt.

    Raises:
        InputError: What is wrong with them.
    """
    if (coords is None) != (labels is None):
        raise InputError("prompt: points without labels, or labels without points", cure="give both")
    points = np.zeros((0, 2)) if coords is None else _floats("point_coords", coords)
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"prompt: point_coords has the shape {list(points.shape)}", cure="give [N, 2]")
    flat_box = None if box is None else _floats("box", box).reshape(-1)
    if flat_box is not None and flat_box.size != 4:
        several = "give x0 y0 x1 y1; several boxes go to predict_torch or predict_batch"
        raise InputError(f"prompt: the box has {flat_box.size} numbers", cure=several)
    return Prompt(
        box=None if flat_box is None else (flat_box[0], flat_box[1], flat_box[2], flat_box[3]),
        points=tuple((float(x), float(y)) for x, y in points),
        labels=() if labels is None else _labels(_floats("point_labels", labels).reshape(-1)),
        mask_input=None if mask_input is None else _mask_input(mask_input),
    )


def _floats(name: str, values: Any) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"prompt: {name} is not an array of numbers") from error


def _labels(values: npt.NDArray[np.float64]) -> tuple[int, ...]:
    unknown = sorted({float(v) for v in values if v not in (0, 1)})
    if unknown:
        raise InputError(f"prompt: labels {unknown}; 1 is foreground, 0 is background")
    return tuple(int(v) for v in values)


def _mask_input(values: Any) -> npt.NDArray[np.float32]:
    low = np.asarray(values)
    if low.dtype == np.bool_:
        raise InputError(
            "prompt: mask_input is a bool mask, not logits", cure="give it as Prompt(mask=...) to predict_batch"
        )
    if low.ndim != 3 or low.shape[0] != 1:
        raise InputError(f"prompt: mask_input has the shape {list(low.shape)}", cure="give [1, m, m]")
    return np.asarray(_floats("mask_input", low[0]), np.float32)
