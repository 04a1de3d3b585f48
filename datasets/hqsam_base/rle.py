"""COCO run-length masks, one at a time, and the three spellings of a mask in annotation and result files.

A mask in a table is COCO compressed RLE: the ``counts`` as ASCII text, with height and width in the
same row. Files hold polygons, uncompressed ``counts`` (a list) or compressed ``counts`` (text); all
of them become the compressed one here. The codec is `hqsam_base.runs`; only polygons go through the
C code that defines their meaning, after a check of what it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from hqsam_base.ids import whole_number
from hqsam_base.runs import (
    MAX_SIDE,
    Int,
    RleBatch,
    RleError,
    Runs,
    check_sizes,
    decode_runs,
    encode_lengths,
    encode_uncompressed,
)

BoolMask = NDArray[np.bool_]
# The C code walks outlines pixel by pixel: a coordinate of 1e9, or null, would take all memory.
FARTHEST = 100_000
# Pixels along all outlines of one object; the C code takes time and memory for each.
_LONGEST_OUTLINE = 2_000_000
_LONGEST = MAX_SIDE**2


class Rle(TypedDict):
    """A COCO compressed run-length mask: ``size`` is [height, width], ``counts`` an ASCII str."""

    size: list[int]
    counts: str


def encode(mask: BoolMask) -> str:
    """Returns the compressed ``counts`` of a mask [H, W], bool or 0 and anything else (bytes equal to pycocotools')."""
    lengths = _lengths(mask)
    data, _ = encode_lengths(lengths, np.array([0, len(lengths)], np.int64))
    return data.tobytes().decode("ascii")


def encode_rle(mask: BoolMask) -> Rle:
    """Returns a mask [H, W] as the COCO formats have it."""
    return Rle(size=[int(side) for side in mask.shape], counts=encode(mask))


def to_uncompressed(mask: BoolMask) -> dict[str, Any]:
    """Returns a mask [H, W] as *uncompressed* RLE, as COCO's crowd regions and all masks of HQ-YTVIS are published."""
    return {"size": [int(side) for side in mask.shape], "counts": _lengths(mask).tolist()}


def _lengths(mask: BoolMask) -> Int:
    """Run lengths in column-major order, background first: int64 [m]."""
    flat = np.asarray(mask, np.bool_).T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]]))
    return np.asarray(np.append(0, lengths) if flat.size and flat[0] else lengths, np.int64)


def decode(counts: str | bytes, *, height: int, width: int) -> BoolMask:
    """Returns the mask of compressed ``counts``: bool [height, width].

    Raises:
        RleError: they do not fill the image, or are malformed otherwise (a ValueError).
    """
    runs = _runs(counts, height, width)
    edges = np.concatenate(
        [[0], np.stack([runs.starts, runs.ends], axis=1).reshape(-1), [height * width]]
    )
    flat = np.repeat((np.arange(len(edges) - 1) & 1).astype(np.bool_), np.diff(edges))
    return np.ascontiguousarray(flat.reshape(width, height).T)


def decode_rle(code: Mapping[str, Any]) -> BoolMask:
    """Returns the mask of a COCO run-length code, compressed (str or bytes) or not (list of int); errors as `decode`."""
    string, height, width = rle_string(code)
    return decode(string, height=height, width=width)


def area(counts: str, *, height: int, width: int) -> int:
    """Returns the number of foreground pixels of compressed ``counts``; errors as `decode`."""
    return int(_runs(counts, height, width).areas()[0])


def _runs(counts: str | bytes, height: int, width: int) -> Runs:
    return decode_runs(RleBatch.of([_ascii(counts)], [height], [width]))


def _ascii(counts: str | bytes) -> bytes:
    try:
        return counts if isinstance(counts, bytes) else counts.encode("ascii")
    except UnicodeEncodeError:
        raise RleError(0, "`counts` has characters that are not ASCII") from None


def from_segmentation(segmentation: Any, *, height: int, width: int) -> str:
    """Returns the compressed ``counts`` of a ``segmentation`` entry, checked to fill the image.

    Args:
        segmentation: see `segmentation_string`.
        height: image height in pixels.
        width: image width in pixels.

    Raises:
        RleError: malformed (a ValueError).
    """
    string = segmentation_string(segmentation, height, width)
    _runs(string, height, width)
    return string.decode("ascii")


def segmentation_string(segmentation: Any, height: int, width: int) -> bytes:
    """Returns the compressed counts of a COCO ``segmentation``: polygons, compressed or uncompressed RLE.

    A compressed code is returned as it is; it is checked when it is decoded.

    Args:
        segmentation: as found in an annotation or a result. An RLE without `size` has that of its
            image.
        height: height of its image, from the images list.
        width: width of its image.

    Raises:
        RleError: malformed, or an RLE of another size than the image.
    """
    if isinstance(segmentation, Mapping):
        string, h, w = rle_string({"size": [height, width], **segmentation})
        if (h, w) != (height, width):
            raise RleError(
                0, f"the mask is {h} x {w}, its image is {height} x {width} (height x width)"
            )
        return string
    if isinstance(segmentation, list):
        return polygons_to_rle(segmentation, height, width)
    if segmentation is None:
        raise RleError(0, "there is no `segmentation`: masks are wanted, a box alone is none")
    raise RleError(
        0, f"`segmentation` must be polygons or a run-length code, is {type(segmentation).__name__}"
    )


def rle_string(code: Mapping[str, Any]) -> tuple[bytes, int, int]:
    """Returns (compressed counts, height, width) of a run-length code in either form.

    The compressed string is returned as it is; it is checked when it is decoded.

    Raises:
        RleError: no run-length code at all, or an uncompressed one that does not fill its image.
    """
    size, counts = _whole(code.get("size"), _LONGEST), code.get("counts")
    if size is None or len(size) != 2:
        raise RleError(0, f"`size` must be [height, width], is {code.get('size')!r:.60}")
    height, width = size
    if isinstance(counts, str | bytes):
        return _ascii(counts), height, width
    lengths = _whole(counts, _LONGEST)
    if lengths is None:
        raise RleError(
            0, "`counts` must be a string or a list of run lengths that are not negative"
        )
    check_sizes(np.array([height]), np.array([width]))
    return encode_uncompressed(np.array(lengths, np.int64), height, width), height, width


def _whole(values: Any, most: int) -> list[int] | None:
    """Returns a list of whole numbers from 0 to `most`, None where it is none."""
    if not isinstance(values, list | tuple) or any(isinstance(v, str) for v in values):
        return None
    try:
        numbers = [whole_number(v.item() if isinstance(v, np.generic) else v) for v in values]
    except (TypeError, ValueError):
        return None
    return numbers if all(0 <= n <= most for n in numbers) else None


def polygons_to_rle(polygons: Sequence[Sequence[float]], height: int, width: int) -> bytes:
    """Rasterises COCO polygons exactly as pycocotools does and returns the compressed counts of their union.

    Args:
        polygons: lists x0, y0, x1, y1, ... in pixels. Pieces of one or two points and an odd last
            value are left out: they draw nothing.
        height: image height.
        width: image width.

    Raises:
        RleError: no polygon of three points, or values that are not numbers or far outside the
            image.
    """
    from pycocotools import mask as coco_mask

    arrays = [_polygon_array(polygon) for polygon in polygons]
    arrays = [values[: len(values) // 2 * 2] for values in arrays if len(values) >= 6]
    if not arrays:
        raise RleError(
            0,
            "`segmentation` has no polygon of at least three points: [[x, y, x, y, x, y, ...], "
            "...]",
        )
    if (
        sum(float(np.abs(np.diff(values.reshape(-1, 2), axis=0)).sum()) for values in arrays)
        > _LONGEST_OUTLINE
    ):
        raise RleError(0, "the outlines of the polygons are longer than those of any object")
    merged = coco_mask.merge(
        coco_mask.frPyObjects([values.tolist() for values in arrays], height, width)
    )
    return _ascii(merged["counts"])


def _polygon_array(polygon: Sequence[float]) -> NDArray[np.float64]:
    try:
        values = np.asarray(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise RleError(0, "a polygon must be a list of numbers") from None
    if values.ndim == 0:
        raise RleError(
            0, "`segmentation` must be a list of polygons [[x, y, ...], ...], is one flat list"
        )
    if values.ndim != 1:
        raise RleError(
            0, "a polygon must be a flat list of numbers [x, y, x, y, ...], not of points [x, y]"
        )
    if not (np.abs(values) <= FARTHEST).all():  # false for what is not a number, too
        raise RleError(
            0, "a polygon has a coordinate that is not a number or far outside the image"
        )
    return values


def tight_box(mask: BoolMask) -> tuple[float, float, float, float] | None:
    """Smallest box with inclusive corners: up to the *last* foreground pixel's index, as in SAM's and HQ-SAM's code.

    Args:
        mask: bool [H, W].

    Returns:
        (x0, y0, x1, y1) in pixels, or None for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])
