"""Masks of one image: bool arrays, run-length codes, boundary bands, IoU and boundary IoU.

The only module that calls the C code of pycocotools (`polygons_to_rle`), and only after a check of what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from hqsam_base.ids import whole_number
from hqsam_metrics.masks import rle

Mask = NDArray[np.bool_]
EmptyRule = Literal["nan", "zero", "one"]

DEFAULT_DILATION_RATIO = 0.02
STRICT_DILATION_RATIO = 0.01
# The C code walks outlines pixel by pixel: a coordinate far outside the image would only make it allocate.
_FARTHEST = 100_000
_LONGEST = rle.MAX_SIDE**2
_LONGEST_OUTLINE = 2_000_000  # pixels along all outlines of one object; the rasteriser takes time and memory for each


class Rle(TypedDict):
    """A COCO compressed run-length mask: ``size`` is [height, width], ``counts`` an ASCII str."""

    size: list[int]
    counts: str


def _as_mask(mask: Any, name: str) -> Mask:
    array = np.asarray(mask)
    if array.ndim != 2:
        raise ValueError(f"{name}: a mask is [H, W], this has shape {array.shape}")
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() > 1)):
        raise ValueError(f"{name}: a mask is bool (or 0/1 integers), this is {array.dtype}; threshold it first")
    return array.astype(np.bool_)


def _as_pair(pred: Any, target: Any) -> tuple[Mask, Mask]:
    pred, target = _as_mask(pred, "pred"), _as_mask(target, "target")
    if pred.shape != target.shape:
        raise ValueError(f"pred {pred.shape} and target {target.shape} differ in size: metrics never resize")
    return pred, target


def dilation_pixels(height: int, width: int, dilation_ratio: float = DEFAULT_DILATION_RATIO) -> int:
    """Returns the band's width in pixels: ``max(1, round(ratio * diagonal))``, halves to the even number.

    Args:
        height: image height (not the object's).
        width: image width.
        dilation_ratio: fraction of the diagonal; 0.02, or 0.01 for "strict" (Boundary IoU, CVPR 2021).

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


def boundary_band(mask: Any, *, dilation_ratio: float = DEFAULT_DILATION_RATIO, dilation: int | None = None) -> Mask:
    """Returns the inner boundary band of a mask.

    The band holds the pixels of the mask whose chessboard distance to the nearest background pixel is at most d;
    everything outside the image is background. The same as d erosions with a 3x3 square on the mask padded by one
    pixel (Boundary IoU API, `mask_to_boundary`), done as one erosion inside the mask's bounding box.

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
    d = dilation if dilation is not None else dilation_pixels(mask.shape[0], mask.shape[1], dilation_ratio)
    if d < 1:
        raise ValueError(f"dilation is {d}, must be at least 1 pixel")
    band: Mask = mask.copy()
    box = mask_box(mask)
    if box is None:
        return band
    x0, y0, x1, y1 = box
    band[y0:y1, x0:x1] &= ~erode_crop(mask[y0:y1, x0:x1], d)
    return band


def _ratio(intersection: int, union: int, empty: EmptyRule) -> float:
    if union:
        return intersection / union
    return {"nan": math.nan, "zero": 0.0, "one": 1.0}[empty]


def mask_iou(*, pred: Any, target: Any, empty: EmptyRule = "nan") -> float:
    """Returns the intersection over union of two masks.

    Args:
        pred: bool [H, W].
        target: bool [H, W].
        empty: the value when both are empty: "nan" (sam-hq), "zero" (COCO), "one" (DAVIS).

    Returns:
        0..1, or NaN.

    Raises:
        ValueError: sizes differ, or an array is no mask.
    """
    pred, target = _as_pair(pred, target)
    intersection = int(np.count_nonzero(pred & target))
    union = int(np.count_nonzero(pred)) + int(np.count_nonzero(target)) - intersection
    return _ratio(intersection, union, empty)


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
        ValueError: sizes differ, an array is no mask, or the ratio is not positive.
    """
    pred, target = _as_pair(pred, target)
    bands = [boundary_band(m, dilation_ratio=dilation_ratio, dilation=dilation) for m in (pred, target)]
    return mask_iou(pred=bands[0], target=bands[1], empty=empty)


def encode_rle(mask: Any) -> Rle:
    """Returns the COCO compressed run-length code of a bool [H, W] mask (bytes equal to pycocotools')."""
    mask = _as_mask(mask, "mask")
    height, width = mask.shape
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]]).astype(np.int64)
    lengths = np.diff(edges)
    if flat.size and flat[0]:
        lengths = np.concatenate([[0], lengths])
    data, _ = rle.encode_lengths(lengths, np.array([0, len(lengths)], np.int64))
    return Rle(size=[height, width], counts=data.tobytes().decode("ascii"))


def decode_rle(code: Mapping[str, Any]) -> Mask:
    """Returns the bool [H, W] mask of a COCO run-length code, compressed (str or bytes) or not (list of int).

    Args:
        code: mapping with ``size`` [height, width] and ``counts``.

    Raises:
        ValueError: malformed code (`hqsam_metrics.masks.rle.RleError` is a ValueError).
    """
    string, height, width = rle_string(code)
    batch = rle.RleBatch.of([string], [height], [width])
    runs = rle.decode_runs(batch)
    edges = np.concatenate([[0], np.stack([runs.starts, runs.ends], axis=1).reshape(-1), [height * width]])
    values = (np.arange(len(edges) - 1) & 1).astype(np.bool_)
    flat = np.repeat(values, np.diff(edges))
    return np.ascontiguousarray(flat.reshape(width, height).T)


def decode_counts(counts: str | bytes, height: int, width: int) -> Mask:
    """Returns the bool [H, W] mask of a compressed ``counts`` string (see `decode_rle`)."""
    return decode_rle({"size": [height, width], "counts": counts})


def _whole(values: Any, most: int) -> list[int] | None:
    """Returns a list of whole numbers from 0 to `most`, None where it is none."""
    try:
        numbers = [whole_number(v.item() if isinstance(v, np.generic) else v) for v in values]
    except (TypeError, ValueError):
        return None
    return numbers if isinstance(values, list | tuple) and all(0 <= n <= most for n in numbers) else None


def rle_string(code: Mapping[str, Any]) -> tuple[bytes, int, int]:
    """Returns (compressed counts, height, width) of a run-length code in either form.

    The compressed string is returned as it is; it is checked when it is decoded.

    Raises:
        RleError: no run-length code at all, or an uncompressed one that does not fill its image.
    """
    size, counts = _whole(code.get("size"), _LONGEST), code.get("counts")
    if size is None or len(size) != 2:
        raise rle.RleError(0, f"`size` must be [height, width], is {code.get('size')!r:.60}")
    height, width = size
    if isinstance(counts, bytes):
        return counts, height, width
    if isinstance(counts, str):
        try:
            return counts.encode("ascii"), height, width
        except UnicodeEncodeError:
            raise rle.RleError(0, "`counts` has characters that are not ASCII") from None
    lengths = _whole(counts, _LONGEST)
    if lengths is None:
        raise rle.RleError(0, "`counts` must be a string or a list of run lengths that are not negative")
    rle.check_sizes(np.array([height]), np.array([width]))
    return rle.encode_uncompressed(np.array(lengths, np.int64), height, width), height, width


def polygons_to_rle(polygons: Sequence[Sequence[float]], height: int, width: int) -> bytes:
    """Rasterises COCO polygons exactly as pycocotools does and returns the compressed counts of their union.

    Args:
        polygons: lists x0, y0, x1, y1, ... in pixels. Pieces of one or two points and an odd last value are left out:
            they draw nothing.
        height: image height.
        width: image width.

    Raises:
        RleError: no polygon of three points, or values that are no numbers or far outside the image.
    """
    from pycocotools import mask as coco_mask

    arrays = [_polygon_array(polygon) for polygon in polygons]
    arrays = [values[: len(values) // 2 * 2] for values in arrays if len(values) >= 6]
    if not arrays:
        raise rle.RleError(0, "`segmentation` has no polygon of at least three points: [[x, y, x, y, x, y, ...], ...]")
    outline = sum(float(np.abs(np.diff(values.reshape(-1, 2), axis=0)).sum()) for values in arrays)
    if outline > _LONGEST_OUTLINE:
        raise rle.RleError(0, "the outlines of the polygons are longer than those of any object")
    merged = coco_mask.merge(coco_mask.frPyObjects([values.tolist() for values in arrays], height, width))
    counts = merged["counts"]
    return counts if isinstance(counts, bytes) else str(counts).encode("ascii")


def _polygon_array(polygon: Sequence[float]) -> NDArray[np.float64]:
    try:
        values = np.asarray(polygon, np.float64)
    except (TypeError, ValueError):
        raise rle.RleError(0, "a polygon must be a list of numbers") from None
    if values.ndim == 0:
        raise rle.RleError(0, "`segmentation` must be a list of polygons [[x, y, ...], ...], is one flat list")
    if values.ndim != 1:
        raise rle.RleError(0, "a polygon must be a flat list of numbers [x, y, x, y, ...], not of points [x, y]")
    if not (np.abs(values) <= _FARTHEST).all():  # false for what is no number, too
        raise rle.RleError(0, "a polygon has a coordinate that is no number or far outside the image")
    return values


def segmentation_string(segmentation: Any, height: int, width: int) -> bytes:
    """Returns the compressed counts of a COCO ``segmentation``: polygons, compressed or uncompressed RLE.

    Args:
        segmentation: as found in an annotation or a result. An RLE without `size` has that of its image.
        height: height of its image, from the images list.
        width: width of its image.

    Raises:
        RleError: malformed, or an RLE of another size than the image.
    """
    if isinstance(segmentation, Mapping):
        string, h, w = rle_string({"size": [height, width], **segmentation})
        if (h, w) != (height, width):
            raise rle.RleError(0, f"the mask is {h} x {w}, its image is {height} x {width} (height x width)")
        return string
    if isinstance(segmentation, list):
        return polygons_to_rle(segmentation, height, width)
    raise rle.RleError(0, f"`segmentation` must be polygons or a run-length code, is {type(segmentation).__name__}")
