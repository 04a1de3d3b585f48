"""Run-length codes of many masks at once, compiled: what `postprocess` does with NumPy, to equal codes.

Each mask's final columns are made one after the other, from two cached columns of the middle image,
and only in the box that can be positive: a mask needs a few columns of memory. The order of float32
operations is that of `postprocess`.

Names: an *axis* is (low, high, t, 1 - t) by output position, a *box* (x0, x1, y0, y1) with ends
exclusive; the *middle* image is SAM's input square without padding, or the logits themselves where
there is one step (``stretch``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from hqsam_base.compiled import jit

_Tuple: Any = types.Tuple
_UniTuple: Any = types.UniTuple
_I64, _U8, _F32, _INT = types.int64[::1], types.uint8[::1], types.float32[::1], types.int64
_MATRIX = types.float32[:, ::1]
_AXIS = _Tuple((_I64, _I64, _F32, _F32))
_LOCAL = _Tuple((types.uint32[::1], types.uint32[::1], _F32, _F32))
_SPAN, _BOX = _UniTuple(types.int64, 2), _UniTuple(types.int64, 4)
_AXES = _UniTuple(_AXIS, 4)


@jit(_SPAN(_U8))
def _extent(flags: Any) -> Any:
    """First flag that is set, and one past the last; (0, 0) where none is."""
    first, stop = 0, len(flags)
    while stop > 0 and not flags[stop - 1]:
        stop -= 1
    while first < stop and not flags[first]:
        first += 1
    return first, stop


@jit(_BOX(_MATRIX))
def _positive(logits: Any) -> Any:
    """The box of what is positive; NaN is not."""
    columns, rows = np.zeros(logits.shape[1], np.uint8), np.zeros(logits.shape[0], np.uint8)
    for y in range(len(rows)):
        some = np.uint8(0)
        for x in range(len(columns)):
            positive = np.uint8(logits[y, x] > 0)
            columns[x] |= positive
            some |= positive
        rows[y] = some
    return *_extent(columns), *_extent(rows)


@jit(_SPAN(_SPAN, _AXIS, _INT))
def _reach_along(span: Any, axis: Any, limit: Any) -> Any:
    if span[0] >= span[1]:
        return 0, 0
    first, stop = np.searchsorted(axis[1], span[0]), np.searchsorted(axis[0], span[1])
    return min(first, limit), min(stop, limit)


@jit(_BOX(_BOX, _AXIS, _AXIS, _INT, _INT))
def _reach(box: Any, x: Any, y: Any, width: Any, height: Any) -> Any:
    """The box of output positions inside width and height that have a neighbour in a box."""
    return *_reach_along(box[:2], x, width), *_reach_along(box[2:], y, height)


@jit(_LOCAL(_AXIS, _SPAN, _SPAN))
def _local(axis: Any, out: Any, span: Any) -> Any:
    """An axis for the output positions `out` where only the inputs of `span` are kept; the last ones stand for those beyond."""
    low = np.empty(out[1] - out[0], np.uint32)  # unsigned: a negative index would cost a test
    high = np.empty_like(low)
    for n in range(len(low)):
        low[n] = min(max(axis[0][out[0] + n], span[0]), span[1] - 1) - span[0]
        high[n] = min(max(axis[1][out[0] + n], span[0]), span[1] - 1) - span[0]
    return low, high, axis[2][out[0] : out[1]], axis[3][out[0] : out[1]]


@jit(types.void(_F32, _LOCAL, _F32), inline="always")
def _resample(column: Any, axis: Any, out: Any) -> None:
    low, high, t, u = axis
    for n in range(len(out)):
        out[n] = column[low[n]] * u[n] + column[high[n]] * t[n]


@jit(_Tuple((_MATRIX, _LOCAL))(_MATRIX, _AXIS, _AXIS, _BOX, types.boolean))
def _columns(logits: Any, x: Any, y: Any, box: Any, two: Any) -> Any:
    """Columns of logits that the middle image's `box` needs, at its rows, and its axis along x from them."""
    first, stop, top, bottom = box
    if two:
        first, stop, top, bottom = x[0][first], x[1][stop - 1] + 1, y[0][top], y[1][bottom - 1] + 1
    turned = np.empty((stop - first, bottom - top), np.float32)
    for n in range(top, bottom):
        for k in range(first, stop):
            turned[k - first, n - top] = logits[n, k]
    along_x = _local(x, box[:2], (first, stop))
    if not two:
        return turned, along_x
    along_y = _local(y, box[2:], (top, bottom))
    tall = np.empty((stop - first, box[3] - box[2]), np.float32)
    for k in range(len(tall)):
        _resample(turned[k], along_y, tall[k])
    return tall, along_x


@jit(types.void(_MATRIX, _LOCAL, types.boolean, _INT, _LOCAL, _F32, _F32), inline="always")
def _fill(tall: Any, x: Any, two: Any, column: Any, y: Any, middle: Any, out: Any) -> None:
    """One column of the middle image, at the rows of the result."""
    if not two:
        _resample(tall[column], y, out)
        return
    a, b, t, u = tall[x[0][column]], tall[x[1][column]], x[2][column], x[3][column]
    for n in range(len(middle)):
        middle[n] = a[n] * u + b[n] * t
    _resample(middle, y, out)


@jit(types.void(_F32, _F32, types.float32, types.float32, types.boolean, _U8, _U8), inline="always")
def _threshold(a: Any, b: Any, t: Any, u: Any, full: Any, bits: Any, flips: Any) -> None:
    """Foreground of a column into ``bits[1:]``, below the pixel above it, and into `flips` where it changes.

    Where the box has the image's full height a column goes on at the top of the next.
    """
    h = len(a)
    bits[0] = bits[h] if full else 0
    for n in range(h):
        bits[n + 1] = a[n] * u + b[n] * t > 0
    for n in range(h):
        flips[n] = bits[n + 1] != bits[n]
    flips[h] = 0 if full else bits[h]


@jit(_INT(_U8, _INT, _I64, _INT), inline="always")
def _collect(flips: Any, base: Any, borders: Any, count: Any) -> Any:
    """Appends the places of a column's changes; returns their number so far."""
    words = flips.view(np.uint64)
    for k in range(len(words)):
        if words[k]:
            for n in range(8 * k, 8 * k + 8):
                if flips[n]:
                    borders[count] = base + n
                    count += 1
    return count


@jit(_I64(_MATRIX, _AXES, types.boolean, _BOX))
def _borders(logits: Any, axes: Any, two: Any, sizes: Any) -> Any:
    """Places in COCO's order where a mask changes between background and foreground."""
    x1, y1, x2, y2 = axes
    box = _positive(logits)
    if two:
        box = _reach(box, x1, y1, sizes[0], sizes[1])
    x, stop, top, bottom = _reach(box, x2, y2, sizes[2], sizes[3])
    if x >= stop or top >= bottom:
        return np.empty(0, np.int64)
    # One more on each side: neighbours of what is positive.
    first, last = max(box[0] - 1, 0), min(box[1] + 1, sizes[0])
    kept = first, last, max(box[2] - 1, 0), min(box[3] + 1, sizes[1])
    tall, along_x = _columns(logits, x1, y1, kept, two)
    along_y = _local(y2, (top, bottom), kept[2:])
    low, high, t, u = _local(x2, (x, stop), kept[:2])
    height, full = sizes[3], top == 0 and bottom == sizes[3]
    middle, cached = np.empty(tall.shape[1], np.float32), np.empty((2, bottom - top), np.float32)
    held = np.full(2, -1, np.int64)
    bits = np.zeros(bottom - top + 1, np.uint8)
    flips = np.zeros((bottom - top) // 8 * 8 + 8, np.uint8)
    borders, count = np.empty(1024, np.int64), 0
    for n in range(len(low)):
        a = 1 if held[1] == low[n] or held[0] == high[n] else 0
        for slot, wanted in ((a, low[n]), (1 - a, high[n])):
            if held[slot] != wanted:
                _fill(tall, along_x, two, wanted, along_y, middle, cached[slot])
                held[slot] = wanted
        _threshold(cached[a], cached[1 - a], t[n], u[n], full, bits, flips)
        if count + len(bits) + 1 > len(borders):
            borders = np.concatenate((borders, np.empty(len(borders) + len(bits), np.int64)))
        count = _collect(flips, (x + n) * height + top, borders, count)
    if full and bits[-1]:
        borders[count] = stop * height
        count += 1
    # COCO writes no empty run at the end.
    return borders[: count - (count > 0 and borders[count - 1] == sizes[2] * height)]


@jit(_SPAN(_I64, _INT, _U8, _INT))
def _write(borders: Any, total: Any, out: Any, at: Any) -> Any:
    """Writes the code of the runs between borders to ``out[at:]``; returns where it ends, and the foreground's pixels.

    From the fourth on, a number is the difference to the length two places before, in groups of five
    bits; see `hqsam_base.runs`.
    """
    before, last, last_but_one, area = 0, 0, 0, 0
    for k in range(len(borders) + 1):
        border = borders[k] if k < len(borders) else total
        length, before = border - before, border
        area += length if k & 1 else 0
        value = length - last_but_one if k > 2 else length
        last_but_one, last = last, length
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            out[at] = group + (80 if more else 48)
            at += 1
    return at, area


@jit(_Tuple((_U8, _I64, _I64))(types.float32[:, :, ::1], _AXES, types.boolean, _BOX))
def encode(logits: Any, axes: Any, two: Any, sizes: Any) -> Any:
    """Upscales, thresholds and encodes masks.

    Args:
        logits: float32 ``[P, m, m]``.
        axes: From the logits to the input square along x and y, then from there to the image; with
            one step the first two do not count.
        two: Whether there are two steps.
        sizes: Width and height of the middle image, then of the result.

    Returns:
        The P codes one after the other, uint8; int64 ``[P + 1]``, where each begins and ends; and
        the masks' areas in pixels, int64 ``[P]``.
    """
    count, total = logits.shape[0], sizes[2] * sizes[3]
    offsets, areas = np.zeros(count + 1, np.int64), np.zeros(count, np.int64)
    out = np.empty(4096, np.uint8)
    for k in range(count):
        borders = _borders(logits[k], axes, two, sizes)
        room = offsets[k] + 7 * (len(borders) + 1)  # seven groups of five bits hold any length
        if room > len(out):
            out = np.concatenate((out, np.empty(room, np.uint8)))
        offsets[k + 1], areas[k] = _write(borders, total, out, offsets[k])
    return out[: offsets[count]].copy(), offsets, areas
