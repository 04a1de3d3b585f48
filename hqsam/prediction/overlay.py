"""A picture of a mask over its image, with the prompt."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hqsam.prediction.prompt import Prompt

U8 = npt.NDArray[np.uint8]

_TINT = np.array([30, 144, 255], np.float32)
_LINE = (255, 255, 255)
_BOX = (0, 220, 0)
_COLOURS = {1: (0, 220, 0), 0: (230, 30, 30)}


def overlay(image: U8, mask: npt.NDArray[np.bool_], prompt: Prompt) -> U8:
    """Tint the mask, draw its outline and the prompt's box and points (green foreground, red background).

    Args:
        image: uint8 ``[H, W, 3]`` RGB.
        mask: bool ``[H, W]``.
        prompt: What was asked for, in pixels of the image.

    Returns:
        uint8 ``[H, W, 3]`` RGB.
    """
    picture = image.astype(np.float32)
    picture[mask] = 0.45 * picture[mask] + 0.55 * _TINT
    out = np.ascontiguousarray(picture.round().astype(np.uint8))
    thick = max(1, round(max(image.shape[:2]) / 500))
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, _LINE, thick)
    if prompt.box is not None:
        x0, y0, x1, y1 = (round(v) for v in prompt.box)
        cv2.rectangle(out, (x0, y0), (x1, y1), _BOX, thick)
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        cv2.circle(out, (round(x), round(y)), 3 * thick, _COLOURS[label], -1)
        cv2.circle(out, (round(x), round(y)), 3 * thick, _LINE, max(1, thick // 2))
    return out
