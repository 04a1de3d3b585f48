"""From low-resolution logits to masks of the image's own size, without full-size float arrays.

A bilinear value is a weighted mean of four neighbours, so it can be positive only next to a
positive one: everything is computed inside the bounding box of what is positive, one mask at a
time, and the box's runs are written as COCO RLE directly. 300 masks of 24 megapixels thus need a
few megabytes each in turn, not 28 GB.

Arrays are kept transposed (x first) from the start: COCO's run-length code goes down the columns.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hqsam.model.preprocess import Frame
from hqsam_base import compiled, rle
from hqsam_base.runs import RleBatch

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
BoolMask = npt.NDArray[np.bool_]

KERNELS = "hqsam.prediction.kernels"
_WORTH = 1000  # masks: numba's import takes as long as the compiled path saves on some 700
_STRIP = 1 << 22  # values of the last interpolation that exist as floats at one time


@dataclass(frozen=True)
class _Axis:
    """Bilinear interpolation along one axis (``align_corners=False``): out = (1 - t) in[low] + t in[high]."""

    low: I64
    high: I64
    t: F32

    @functools.cached_property
    def arrays(self) -> tuple[I64, I64, F32, F32]:
        """As `kernels` take it: low, high, t, 1 - t."""
        return self.low, self.high, self.t, 1 - self.t


@functools.lru_cache(maxsize=64)
def _axis(n_in: int, n_out: int) -> _Axis:
    # In float32 and in this order, as torch.nn.functional.interpolate does it.
    scale = np.float32(n_in) / np.float32(n_out)
    source = np.maximum(
        scale * (np.arange(n_out, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5),
        np.float32(0),
    )
    low = np.minimum(source.astype(np.int64), n_in - 1)
    return _Axis(
        low, np.minimum(low + 1, n_in - 1), (source - low.astype(np.float32)).astype(np.float32)
    )


@dataclass(frozen=True)
class _Patch:
    """A rectangle of a larger array, x first: ``values[x - x0, y - y0]``. Outside nothing is positive."""

    values: F32
    x0: int
    y0: int


@dataclass(frozen=True)
class MaskPatch:
    """A mask of the original size, known inside a rectangle and empty outside.

    Attributes:
        inside_xy: bool ``[w, h]`` (transposed), the rectangle.
        x0: Its first column.
        y0: Its first row.
        height: Rows of the whole mask.
        width: Columns of the whole mask.
    """

    inside_xy: BoolMask
    x0: int
    y0: int
    height: int
    width: int

    @classmethod
    def of(cls, mask: BoolMask) -> MaskPatch:
        """Take a whole mask, bool ``[H, W]``."""
        return cls(mask.T, 0, 0, mask.shape[0], mask.shape[1])

    @property
    def area(self) -> int:
        """Number of foreground pixels."""
        return int(np.count_nonzero(self.inside_xy))

    def full(self) -> BoolMask:
        """The whole mask, bool ``[H, W]``."""
        mask = np.zeros((self.height, self.width), dtype=bool)
        w, h = self.inside_xy.shape
        mask[self.y0 : self.y0 + h, self.x0 : self.x0 + w] = self.inside_xy.T
        return mask

    def counts(self) -> list[int]:
        """Run lengths in COCO's order (down the columns, from left to right); the first run is background."""
        w, h = self.inside_xy.shape
        edges = np.zeros((w, h + 2), np.int8)
        edges[:, 1:-1] = self.inside_xy
        steps = np.diff(edges, axis=1).ravel()
        # Position p of the rectangle's (h + 1)-step columns to a position in the whole mask's
        # columns.
        column, row = np.divmod(np.flatnonzero(steps), h + 1)
        borders = (self.x0 + column) * self.height + self.y0 + row
        # A run that reaches the bottom goes on at the top of the next column: the two borders
        # coincide and cancel.
        same = np.flatnonzero(borders[1:] == borders[:-1])
        borders = np.delete(borders, np.concatenate([same, same + 1]))
        total = self.height * self.width
        borders = borders[borders < total]  # COCO writes no empty run at the end
        return [int(n) for n in np.diff(borders, prepend=0, append=total)]

    def rle(self) -> str:
        """COCO compressed RLE ``counts``."""
        segmentation = {"size": [self.height, self.width], "counts": self.counts()}
        return rle.from_segmentation(segmentation, height=self.height, width=self.width)


def mask_patch(logits_hw: F32, frame: Frame) -> MaskPatch:
    """Upscale one mask's logits and threshold them at 0.

    ``stretch``: straight to the original size, as HQ-SAM's evaluation does. ``longest_side``: to
    the input square, padding cut off, then to the original size, as ``Sam.postprocess_masks`` does.
    Equal to PyTorch's result but for pixels whose value is zero up to rounding.

    Args:
        logits_hw: float32 ``[m, m]``.
        frame: Where the image lies in the input square.

    Returns:
        The mask; foreground is logit > 0.
    """
    patch = _Patch(np.ascontiguousarray(logits_hw.T, dtype=np.float32), 0, 0)
    m_x, m_y = patch.values.shape
    if frame.resize == "longest_side":
        x, y = _axis(m_x, frame.size), _axis(m_y, frame.size)
        (m_y, m_x) = frame.resized
        xs, ys = _reach(patch, x, y, limit=(m_x, m_y), margin=1)
        patch = _Patch(np.concatenate(list(_strips(patch, x, y, xs, ys))), xs.start, ys.start)
    x, y = _axis(m_x, frame.width), _axis(m_y, frame.height)
    xs, ys = _reach(patch, x, y, limit=(frame.width, frame.height), margin=0)
    inside = [strip > 0 for strip in _strips(patch, x, y, xs, ys)]
    return MaskPatch(np.concatenate(inside), xs.start, ys.start, frame.height, frame.width)


def _reach(
    patch: _Patch, x: _Axis, y: _Axis, *, limit: tuple[int, int], margin: int
) -> tuple[slice, slice]:
    """Output columns and rows, below ``limit``, that have a positive neighbour, widened by ``margin``."""
    positive: BoolMask = patch.values > 0
    if not positive.any():
        return slice(0, 0), slice(0, 0)
    return (
        _reach_along(np.any(positive, axis=1), patch.x0, x, limit[0], margin),
        _reach_along(np.any(positive, axis=0), patch.y0, y, limit[1], margin),
    )


def _reach_along(
    positive: npt.NDArray[np.bool_], start: int, axis: _Axis, limit: int, margin: int
) -> slice:
    where = np.flatnonzero(positive) + start
    first = int(np.searchsorted(axis.high, where[0], side="left")) - margin
    stop = int(np.searchsorted(axis.low, where[-1], side="right")) + margin
    return slice(min(max(first, 0), limit), min(stop, limit))


def _strips(patch: _Patch, x: _Axis, y: _Axis, xs: slice, ys: slice) -> Iterator[F32]:
    """The interpolated rectangle ``[xs, ys]``, in strips of whole columns; at least one, possibly empty."""
    along_y = np.ascontiguousarray(_lerp(patch.values.T, y, ys, patch.y0).T)
    step = max(1, _STRIP // max(1, along_y.shape[1]))
    for start in range(xs.start, max(xs.stop, xs.start + 1), step):
        yield _lerp(along_y, x, slice(start, min(start + step, xs.stop)), patch.x0)


def _lerp(values: F32, axis: _Axis, out: slice, start: int) -> F32:
    """Interpolate along the first axis to the output positions ``out``; ``values`` begin at input ``start``."""
    last = len(values) - 1
    low = np.clip(axis.low[out] - start, 0, last)
    high = np.clip(axis.high[out] - start, 0, last)
    t = axis.t[out][:, None]
    result = values[low]
    result *= 1 - t
    result += values[high] * t
    return result


@dataclass(frozen=True)
class MaskCodes:
    """P masks as COCO compressed RLE.

    Attributes:
        codes: the masks.
        areas: int64 [P], foreground pixels.
    """

    codes: RleBatch
    areas: I64

    @classmethod
    def of(cls, patches: Sequence[MaskPatch]) -> MaskCodes:
        """Encode masks that exist one by one."""
        strings = [patch.rle().encode("ascii") for patch in patches]
        heights, widths = [p.height for p in patches], [p.width for p in patches]
        areas = np.array([patch.area for patch in patches], np.int64)
        return cls(RleBatch.of(strings, heights, widths), areas)


_made = 0  # masks of this process; threads may miscount a few, which changes no code


def mask_codes(logits_Phw: F32, frame: Frame) -> MaskCodes | None:
    """Upscale the logits of masks, threshold them at 0 and encode them, in a compiled kernel without the interpreter's lock.

    Args:
        logits_Phw: float32 ``[P, m, m]``.
        frame: Where the image lies in the input square.

    Returns:
        What `mask_patch` gives for each; None where the kernel is not there, or has not paid off yet
        with the masks that this process was asked for so far.
    """
    global _made
    _made += len(logits_Phw)
    if not compiled.ready(KERNELS, size=_made, worth=_WORTH):
        return None
    from hqsam.prediction import kernels

    m_y, m_x = logits_Phw.shape[1:]
    two = frame.resize == "longest_side"
    h, w = frame.resized if two else (m_y, m_x)
    steps = (m_x, frame.size), (m_y, frame.size), (w, frame.width), (h, frame.height)
    data, offsets, areas = kernels.encode(
        np.ascontiguousarray(logits_Phw, np.float32),
        tuple(_axis(*step).arrays for step in steps),
        two,
        (w, h, frame.width, frame.height),
    )
    sides = (np.full(len(areas), side, np.int64) for side in (frame.height, frame.width))
    return MaskCodes(RleBatch(data, offsets, *sides), areas)
