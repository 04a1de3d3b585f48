"""Checks of the input of ``SamHQPredictor``: what could silently give a wrong mask is refused.

Shape letters: N points; m side of low-resolution masks; H, W original image.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hqsam.errors import InputError
from hqsam.prediction.prompt import Prompt
from hqsam_datasets.formats.image_files import MAX_PIXELS


def check_image(image: Any) -> npt.NDArray[np.uint8]:
    """An image as the model takes it: uint8 ``[H, W, 3]``.

    Grey images (``[H, W]``, ``[H, W, 1]``) are replicated and an alpha channel is dropped, as the
    data pipeline does.

    Raises:
        InputError: Not an array of 8-bit pixels, empty, or too large. Floats and 16-bit pixels are
            refused because their range is unknown.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"the image is a {type(image).__name__}", cure="give a numpy array, uint8 [H, W, 3]"
        )
    if image.dtype != np.uint8:
        raise InputError(
            f"the image's pixels are {image.dtype}",
            cure="scale them to 0..255 and convert to uint8",
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InputError(f"the image has the shape {list(image.shape)}", cure="give [H, W, 3]")
    if image.size == 0:
        raise InputError(f"the image is empty ({image.shape[1]} x {image.shape[0]} pixels)")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise InputError(
            f"the image has more than {MAX_PIXELS:,} pixels", cure="tile it or make it smaller"
        )
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]


def check_encoded(features: Tensor) -> None:
    """An image embedding in half precision, whose largest number is 65,504.

    Raises:
        InputError: It overflowed: every mask would be empty.
    """
    if features.dtype == torch.float16 and not bool(features.isfinite().all()):
        cure = (
            "use torch.bfloat16 in place of float16, or keep the model in float32 inside "
            "torch.autocast"
        )
        raise InputError("the model overflows in float16 on this image", cure=cure)


def check_choices(**given: tuple[Any, Any]) -> None:
    """Options of which only some values mean something: an unknown one would silently mean the default.

    Args:
        given: By name, the value and the ``Literal`` that it must be of.

    Raises:
        InputError: Another value.
    """
    for name, (value, choices) in given.items():
        if value not in get_args(choices):
            raise InputError(
                f"{name} is {value!r}", cure=f"use one of {', '.join(get_args(choices))}"
            )


def check_counts(least: int = 1, **given: Any) -> None:
    """Numbers of things, by name, of which there must be so many.

    Raises:
        InputError: Less, or no whole number.
    """
    for name, value in given.items():
        if not isinstance(value, Integral) or int(value) < least:
            raise InputError(
                f"{name} is {value!r}", cure=f"give a whole number of at least {least}"
            )


def check_batch(images: Sequence[Any], prompts: Sequence[Any]) -> None:
    """Images and, for each, a list of prompts.

    Raises:
        InputError: the numbers differ, or an entry is not a list of ``Prompt``.
    """
    if len(images) != len(prompts):
        raise InputError(f"{len(images)} images and {len(prompts)} lists of prompts")
    for number, some in enumerate(prompts):
        if not isinstance(some, Sequence) or not all(isinstance(prompt, Prompt) for prompt in some):
            raise InputError(
                f"the prompts of image {number} are not a list of Prompt",
                cure="give one list per image",
            )


def checked_prompt(coords: Any, labels: Any, box: Any, mask_input: Any) -> Prompt:
    """The arguments of ``SamPredictor.predict`` as a checked prompt.

    Raises:
        InputError: What is wrong with them.
    """
    if (coords is None) != (labels is None):
        raise InputError(
            "prompt: points without labels, or labels without points", cure="give both"
        )
    points = np.zeros((0, 2)) if coords is None else _floats("point_coords", coords)
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(
            f"prompt: point_coords has the shape {list(points.shape)}", cure="give [N, 2]"
        )
    flat_box = None if box is None else _floats("box", box).reshape(-1)
    if flat_box is not None and flat_box.size != 4:
        several = "give x0 y0 x1 y1; several boxes go to predict_torch or predict_batch"
        raise InputError(f"prompt: the box has {flat_box.size} numbers", cure=several)
    flat_labels = np.zeros(0) if labels is None else _floats("point_labels", labels).reshape(-1)
    unknown = sorted({float(v) for v in flat_labels if v not in (0, 1)})
    if unknown:
        raise InputError(f"prompt: labels {unknown}; 1 is foreground, 0 is background")
    low = None if mask_input is None else np.asarray(mask_input)
    if low is not None and (low.ndim != 3 or low.shape[0] != 1):
        raise InputError(
            f"prompt: mask_input has the shape {list(low.shape)}", cure="give [1, m, m]"
        )
    return Prompt(
        box=None if flat_box is None else (flat_box[0], flat_box[1], flat_box[2], flat_box[3]),
        points=tuple((float(x), float(y)) for x, y in points),
        labels=tuple(int(v) for v in flat_labels),
        mask_input=None if low is None else np.asarray(low[0]),
    )


def _floats(name: str, values: Any) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"prompt: {name} is not an array of numbers") from error
