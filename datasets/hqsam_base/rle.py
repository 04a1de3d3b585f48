"""COCO run-length masks: the one module of this package that calls pycocotools.

A mask in a table is COCO compressed RLE: the ``counts`` as ASCII text, with height and width in the same
row. Ground-truth files hold three spellings of a mask (polygons, uncompressed ``counts`` as a list,
compressed ``counts`` as text); all of them become the compressed one here, by the code that defines their
meaning (pycocotools' C functions).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as _coco

_FARTHEST = 100_000
"""Pixels from the image's corner to any point of a polygon."""
_LONGEST_OUTLINE = 2_000_000
"""Pixels along all outlines of one object; the C code takes time and memory for each."""
BoolMask = npt.NDArray[np.bool_]


def encode(mask: BoolMask) -> str:
    """Encodes a mask.

    Args:
        mask: bool [H, W].

    Returns:
        The compressed ``counts``.
    """
    return str(_coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii"))


def decode(counts: str, *, height: int, width: int) -> BoolMask:
    """Decodes compressed ``counts`` into a bool [height, width] mask."""
    decoded: npt.NDArray[np.uint8] = _coco.decode({"size": [height, width], "counts": counts.encode("ascii")})
    return decoded.astype(bool)


def area(counts: str, *, height: int, width: int) -> int:
    """Number of foreground pixels."""
    return int(_coco.area({"size": [height, width], "counts": counts.encode("ascii")}))


def from_segmentation(segmentation: Any, *, height: int, width: int) -> str:
    """Compresses a ``segmentation`` entry of a COCO-type file.

    Args:
        segmentation: a list of polygons ``[x0, y0, x1, y1, ...]`` (united), or an RLE object with
            ``counts`` as list or text.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        The compressed ``counts``.

    Raises:
        ValueError: the entry is none of these, has no polygon of three points or more, a coordinate that is no number
        or far outside, or its ``size`` is not the image's; run lengths do not add up to the image.
    """
    try:
        return _compressed(segmentation, height, width)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"segmentation holds what does not belong there: {error}") from error


def _compressed(segmentation: Any, height: int, width: int) -> str:
    if isinstance(segmentation, list):
        polygons = [p for p in segmentation if len(p) >= 6]
        if not polygons:
            raise ValueError("segmentation has no polygon of at least three points")
        _check_coordinates(polygons)
        merged = _coco.merge(_coco.frPyObjects(polygons, height, width))
        return str(merged["counts"].decode("ascii"))
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError(f"segmentation is neither polygons nor RLE but {type(segmentation).__name__}")
    _check_size(segmentation, height, width)
    counts = segmentation["counts"]
    if isinstance(counts, list):
        _check_list(counts, height, width)
        return str(
            _coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"].decode("ascii")
        )
    text = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
    _check_runs(text, height, width)
    return text


def to_uncompressed(mask: BoolMask) -> dict[str, Any]:
    """Writes a mask as *uncompressed* RLE, as COCO's crowd regions and all masks of HQ-YTVIS are published.

    Args:
        mask: bool [H, W].

    Returns:
        ``{"size": [H, W], "counts": [...]}``: run lengths in column-major order, the first run is background.
    """
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    counts = [int(n) for n in runs]
    return {"size": [int(n) for n in mask.shape], "counts": [0, *counts] if flat.size and flat[0] else counts}


def _check_coordinates(polygons: list[Any]) -> None:
    """The C code walks outlines pixel by pixel and checks nothing: a coordinate of 1e9, or null, ends the process."""
    outline = 0.0
    for polygon in polygons:
        values = np.asarray(polygon, np.float64)
        if values.ndim != 1 or not (np.abs(values) <= _FARTHEST).all():  # false for what is no number, too
            raise ValueError("a polygon holds a coordinate that is no number or lies far outside the image")
        outline += float(np.abs(np.diff(values[0::2])).sum() + np.abs(np.diff(values[1::2])).sum())
    if outline > _LONGEST_OUTLINE:
        raise ValueError("the outlines of the polygons are longer than those of any object")


def _check_size(segmentation: dict[str, Any], height: int, width: int) -> None:
    size = [int(n) for n in segmentation.get("size", [height, width])]
    if size != [height, width]:
        raise ValueError(f"RLE size {size} is not the image's [{height}, {width}]")


def _check_list(counts: list[Any], height: int, width: int) -> None:
    """The C code takes the whole part of each number: halves that add up to the image would leave pixels undecided."""
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any():
        raise ValueError("RLE counts hold what is no run length")
    _check_sum(sum(counts), height, width)


def _check_sum(total: int, height: int, width: int) -> None:
    if total != height * width:
        raise ValueError(f"RLE counts add up to {total}, not to {height} x {width} pixels")


def _check_runs(text: str, height: int, width: int) -> None:
    """Compressed counts must fill the image: pycocotools leaves the pixels after the last run as the memory was."""
    runs = _runs(text)
    if (runs < 0).any():
        raise ValueError("RLE counts hold a negative run")
    _check_sum(int(runs.sum()), height, width)


def _runs(text: str) -> npt.NDArray[np.int64]:
    """Run lengths of compressed counts, as `rleToString` of the COCO API writes them.

    Five bits a character, 32 says that more follow, 16 in the last one is the sign; from the fourth run on each is
    stored as the difference to the last but one.
    """
    digits = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if digits.size and (digits.min() < 0 or digits.max() > 63 or digits[-1] & 32):
        raise ValueError("RLE counts hold a character that does not belong there, or are cut off")
    last = np.flatnonzero((digits & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1]).astype(np.int64)[: last.size]
    place = np.arange(digits.size) - np.repeat(first, last - first + 1)
    if place.max(initial=0) > 6:  # 35 bits; the C code holds 32
        raise ValueError("RLE counts hold a run that no image has")
    values = np.add.reduceat((digits & 31) << (5 * place), first) if last.size else digits
    values = values - np.where(digits[last] & 16, np.int64(1) << (5 * (place[last] + 1)), 0)
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
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
