"""Pictures of found overlaps, for people: training image left, evaluation image right, what they share drawn in."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

MAX_PICTURES = 24
_HEIGHT = 240
_MAX_WIDTH = 480
_GAP = 8
_LINE = 17
_MIN_WIDTH = 560
_INK = (30, 30, 30)
_FRAME = (255, 140, 0)
_EDGE = (0, 150, 60)


def choose(kinds: Sequence[str], limit: int = MAX_PICTURES) -> list[int]:
    """Choose the pairs to show: rows of `kinds`, one kind after the other in turn, first rows first; sorted."""
    by_kind: dict[str, list[int]] = {}
    for row, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(row)
    turns = sorted(
        (place, kind, row) for kind, rows in by_kind.items() for place, row in enumerate(rows)
    )
    return sorted(row for _, _, row in turns[:limit])


def picture(
    train: U8, other: U8, *, affine: F64, region: NDArray[np.bool_], lines: Sequence[str]
) -> bytes:
    """Draw one pair as PNG.

    Args:
        train: the training image, uint8 [H, W, 3] RGB.
        other: the evaluation image, uint8 [h, w, 3] RGB.
        affine: float64 [2, 3], from pixels of `train` to pixels of `other`.
        region: bool, any size: where `other` agrees, stretched over it; the rest is faded.
        lines: caption.

    Returns:
        PNG bytes, the same for the same input.
    """
    left, _ = _fit(train)
    right, scale = _fit(other)
    right = _fade(right, region)
    # The outline of the training image's frame where it lies in the evaluation image.
    height, width = train.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - 0.5
    placed = (corners @ affine[:, :2].T + affine[:, 2] + 0.5) * scale
    points = np.clip(np.rint(placed), -10_000, 10_000).astype(np.int32)
    cv2.polylines(right, [points.reshape(-1, 1, 2)], True, _FRAME, 2, cv2.LINE_AA)
    top = _LINE * len(lines) + 6
    width = max(_MIN_WIDTH, left.shape[1] + _GAP + right.shape[1])
    canvas = np.full((top + max(left.shape[0], right.shape[0]), width, 3), 255, np.uint8)
    canvas[top : top + left.shape[0], : left.shape[1]] = left
    start = left.shape[1] + _GAP
    canvas[top : top + right.shape[0], start : start + right.shape[1]] = right
    for row, line in enumerate(lines):
        cv2.putText(
            canvas,
            line,
            (4, 14 + _LINE * row),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.42,
            _INK,
            1,
            cv2.LINE_AA,
        )
    done, data = cv2.imencode(".png", cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))
    if not done:
        raise RuntimeError("OpenCV could not encode a PNG")
    return bytes(data)


def _fade(image: U8, region: NDArray[np.bool_]) -> U8:
    """Turn all but the region to light grey and draw the region's edge."""
    size = (image.shape[1], image.shape[0])
    weight = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)[..., None]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    faded = image * weight + (0.35 * grey + 0.65 * 255) * (1 - weight)
    result = np.ascontiguousarray(np.rint(faded).astype(np.uint8))
    edges, _ = cv2.findContours(
        (weight > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(result, edges, -1, _EDGE, 1)
    return result


def _fit(image: U8) -> tuple[U8, float]:
    scale = min(_HEIGHT / image.shape[0], _MAX_WIDTH / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), scale
