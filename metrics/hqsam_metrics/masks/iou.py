"""Masks of one image: bool arrays, boundary bands, IoU and boundary IoU."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
EmptyRule = Literal["nan", "zero", "one"]

DEFAULT_DILATION_RATIO = 0.02
STRICT_DILATION_RATIO = 0.01


def _as_mask(mask: Any, name: str) -> Mask:
    array = np.asarray(mask)
    if array.ndim != 2:
        raise ValueError(f"{name}: a mask is [H, W], this has shape {array.shape}")
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() > 1)):
        raise ValueError(
            f"{name}: a mask is bool (or 0/1 integers), this is {array.dtype}; threshold it first"
        )
    return array.astype(np.bool_)


def _as_pair(pred: Any, target: Any) -> tuple[Mask, Mask]:
    pred, target = _as_mask(pred, "pred"), _as_mask(target, "target")
    if pred.shape != target.shape:
        raise ValueError(
            f"pred {pred.shape} and target {target.shape} differ in size: metrics never resize"
        )
    return pred, target


def dilation_pixels(height: int, width: int, dilation_ratio: float = DEFAULT_DILATION_RATIO) -> int:
    """Returns the band's width in pixels: ``max(1, round(ratio * diagonal))``, halves to the even number.

    Args:
        height: image height (not the object's).
        width: image width.
        dilation_ratio: fraction of the diagonal; 0.02, or 0.01 for "strict" (Boundary IoU, CVPR
            2021).

    Returns:
        Pixels, at least 1.

    Raises:
        ValueError: the ratio is not a positive finite number.
    """
    if not (math.isfinite(dilation_ratio) and dilation_ratio > 0):
        raise ValueError(f"dilation_ratio is {dilation_ratio}, must be a positive number")
    return max(1, round(dilation_ratio * math.sqrt(height * height + width * width)))


def mask_box(mask: Mask) -> tuple[int, int, int, int] | None:
    """Returns the tight box x0, y0, x1, y1 (half-open pixels) of a bool [H, W] mask, None when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1


def _erode_axis(mask: Mask, size: int) -> Mask:
    """Erodes along axis 0 by a window of `size` rows (valid part only), doubling the window at each step."""
    done = 1
    while 2 * done <= size:
        mask = mask[:-done] & mask[done:]
        done *= 2
    rest = size - done
    return mask[:-rest] & mask[rest:] if rest else mask


def erode_crop(mask: Mask, dilation: int) -> Mask:
    """Erodes a mask that fills its array by a (2 dilation + 1) square; outside the array is background.

    Args:
        mask: bool [h, w], usually the crop of a mask to its tight box.
        dilation: pixels.

    Returns:
        bool [h, w]: pixels whose chessboard distance to the background is more than `dilation`.
    """
    out = np.zeros_like(mask)
    size = 2 * dilation + 1
    if min(mask.shape) < size:
        return out
    inner = _erode_axis(mask, size)
    inner = _erode_axis(np.ascontiguousarray(inner.T), size)
    out[dilation:-dilation, dilation:-dilation] = inner.T
    return out


def boundary_band(
    mask: Any, *, dilation_ratio: float = DEFAULT_DILATION_RATIO, dilation: int | None = None
) -> Mask:
    """Returns the inner boundary band of a mask.

    The band holds the pixels of the mask whose chessboard distance to the nearest background pixel
    is at most d; everything outside the image is background. The same as d erosions with a 3x3
    square on the mask padded by one pixel (Boundary IoU API, `mask_to_boundary`), done as one
    erosion inside the mask's bounding box.

    Args:
        mask: bool [H, W].
        dilation_ratio: d = max(1, round(ratio * image diagonal)), halves to even.
        dilation: d in pixels, instead of the ratio.

    Returns:
        bool [H, W].

    Raises:
        ValueError: not a 2-D bool (or 0/1) array, or no positive ratio.
    """
    mask = _as_mask(mask, "mask")
    d = (
        dilation
        if dilation is not None
        else dilation_pixels(mask.shape[0], mask.shape[1], dilation_ratio)
    )
    if d < 1:
        raise ValueError(f"dilation is {d}, must be at least 1 pixel")
    band: Mask = mask.copy()
    box = mask_box(mask)
    if box is None:
        return band
    x0, y0, x1, y1 = box
    band[y0:y1, x0:x1] &= ~erode_crop(mask[y0:y1, x0:x1], d)
    return band


def mask_iou(*, pred: Any, target: Any, empty: EmptyRule = "nan") -> float:
    """Returns the intersection over union of two masks.

    Args:
        pred: bool [H, W].
        target: bool [H, W].
        empty: the value when both are empty: "nan" (sam-hq), "zero" (COCO), "one" (DAVIS).

    Returns:
        0..1, or NaN.

    Raises:
        ValueError: sizes differ, or an array is not a mask.
    """
    pred, target = _as_pair(pred, target)
    intersection = int(np.count_nonzero(pred & target))
    union = int(np.count_nonzero(pred)) + int(np.count_nonzero(target)) - intersection
    if union:
        return intersection / union
    return {"nan": math.nan, "zero": 0.0, "one": 1.0}[empty]


def boundary_iou(
    *,
    pred: Any,
    target: Any,
    dilation_ratio: float = DEFAULT_DILATION_RATIO,
    dilation: int | None = None,
    empty: EmptyRule = "nan",
) -> float:
    """Returns the boundary IoU (Cheng et al., CVPR 2021): the IoU of the two inner boundary bands.

    This is the pure value; the minimum with the mask IoU belongs to the AP matching only.

    Args:
        pred: bool [H, W].
        target: bool [H, W].
        dilation_ratio: width of the band as a fraction of the image diagonal.
        dilation: the width in pixels, instead of the ratio.
        empty: the value when both are empty, see `mask_iou`.

    Returns:
        0..1, or NaN.

    Raises:
        ValueError: sizes differ, an array is not a mask, or the ratio is not positive.
    """
    pred, target = _as_pair(pred, target)
    bands = [
        boundary_band(m, dilation_ratio=dilation_ratio, dilation=dilation) for m in (pred, target)
    ]
    return mask_iou(pred=bands[0], target=bands[1], empty=empty)
