"""Loops over packed masks that are compiled where they pay off (see `hqsam_base.compiled`).

Each does what a plain path of `hqsam_metrics.masks.packed` does, one mask after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hqsam_base.compiled import jit

_MAX_GROUPS = 7  # see `hqsam_base.runs`
_ODD = np.uint64(0x5555555555555555)
_TWOS = np.uint64(0x3333333333333333)
_FOURS = np.uint64(0x0F0F0F0F0F0F0F0F)
_SUM = np.uint64(0x0101010101010101)
_ONE = np.uint64(1)


@jit()
def _bits(word: Any) -> Any:
    """Counts the bits of a word; the compiler makes one instruction of it."""
    word = word - ((word >> _ONE) & _ODD)
    word = (word & _TWOS) + ((word >> np.uint64(2)) & _TWOS)
    word = (word + (word >> np.uint64(4))) & _FOURS
    return np.int64((word * _SUM) >> np.uint64(56))


@jit()
def _cut(begin: Any, end: Any, height: Any, total: Any, x: Any, y0: Any, y1: Any) -> Any:
    """Cuts a run at the ends of the image columns into pieces from place `total` on; returns the new total."""
    column = begin // height
    top = begin - column * height
    left = end - begin
    while left > 0:
        bottom = min(top + left, height)
        x[total], y0[total], y1[total] = column, top, bottom
        total += 1
        left -= bottom - top
        column += 1
        top = 0
    return total


@jit(
    "int64(uint8[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], int32[::1], int32[::1], int32[::1], int64[::1], int64[:, ::1])"
)
def decode(
    data: Any,
    offsets: Any,
    heights: Any,
    widths: Any,
    counts: Any,
    x: Any,
    y0: Any,
    y1: Any,
    areas: Any,
    boxes: Any,
) -> Any:
    """Decodes run-length strings to measured column pieces (`hqsam_metrics.masks.packed.Shapes`).

    Args:
        data: uint8, the strings.
        offsets: int64 [n + 1].
        heights: int64 [n], of the images.
        widths: int64 [n].
        counts: int64 [n], filled.
        x: int32, filled, as `y0` and `y1`; as long as the strings and the images' columns together.
        y0: int32, filled.
        y1: int32, filled.
        areas: int64 [n], filled.
        boxes: int64 [n, 4], filled.

    Returns:
        The number of pieces; -1 when a string is empty or not valid.
    """
    total = 0
    for i in range(len(heights)):
        height, size = heights[i], heights[i] * widths[i]
        at, end = offsets[i], offsets[i + 1]
        if at == end or size == 0:
            return -1
        first, number = total, 0
        two_before, before, done = np.int64(0), np.int64(0), np.int64(0)
        begin, stop = np.int64(0), np.int64(0)  # the run that waits for what follows
        while at < end:
            value, groups = np.int64(0), 0
            more: Any = True
            while more:
                if at == end or groups == _MAX_GROUPS:
                    return -1
                bits = np.int64(data[at]) - 48
                if bits < 0 or bits > 63:
                    return -1
                at += 1
                value |= (bits & 31) << (5 * groups)
                groups += 1
                more = bits > 31
                if not more and bits & 16:
                    value |= np.int64(-1) << (5 * groups)
            if number > 2:
                value += two_before
            if value < 0 or value > size - done:
                return -1
            two_before, before = before, value
            if number & 1 and value > 0:
                if stop == done and stop > begin:
                    stop += value
                else:
                    total = _cut(begin, stop, height, total, x, y0, y1)
                    begin, stop = done, done + value
            done += value
            number += 1
        total = _cut(begin, stop, height, total, x, y0, y1)
        if done != size:
            return -1
        counts[i], areas[i] = total - first, 0
        boxes[i] = 0
        if total > first:
            low, high = y0[first], y1[first]
            for piece in range(first, total):
                areas[i] += y1[piece] - y0[piece]
                low, high = min(low, y0[piece]), max(high, y1[piece])
            boxes[i, 0], boxes[i, 1] = x[first], low
            boxes[i, 2], boxes[i, 3] = x[total - 1] + 1, high
    return total


@jit()
def _set(words: Any, column: Any, y0: Any, y1: Any) -> None:
    """Sets the bits y0 .. y1 - 1 of the column whose word row 0 is at `column`."""
    first, last = column + (y0 >> 6), column + (y1 >> 6)
    low = _ONE << np.uint64(y0 & 63)
    high = _ONE << np.uint64(y1 & 63)
    if first == last:
        words[first] |= high - low
    else:
        words[first] |= ~(low - _ONE)
        for word in range(first + 1, last):
            words[word] = ~np.uint64(0)
        if y1 & 63:
            words[last] |= high - _ONE


@jit(
    "void(int64[::1], int32[::1], int32[::1], int32[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], uint64[::1])"
)
def fill(
    counts: Any,
    x: Any,
    y0: Any,
    y1: Any,
    base: Any,
    stride: Any,
    x0: Any,
    w0: Any,
    words: Any,
) -> None:
    """Draws column pieces on empty words.

    Args:
        counts: int64 [n], see `Shapes`.
        x: int32 [pieces], as `y0` and `y1`.
        y0: int32 [pieces].
        y1: int32 [pieces].
        base: int64 [n], as `stride`, `x0` and `w0`: see `Planes`.
        stride: int64 [n].
        x0: int64 [n].
        w0: int64 [n].
        words: uint64, filled.
    """
    piece = 0
    for i in range(len(counts)):
        start = base[i] - x0[i] * stride[i] - w0[i]
        for _ in range(counts[i]):
            _set(words, start + x[piece] * stride[i], np.int64(y0[piece]), np.int64(y1[piece]))
            piece += 1


@jit(
    "void(int64[::1], int32[::1], int32[::1], int32[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], int64[::1], int64[::1], boolean[::1], uint64[::1], int64[::1])"
)
def make_bands(
    counts: Any,
    x: Any,
    y0: Any,
    y1: Any,
    base: Any,
    stride: Any,
    x0: Any,
    x1: Any,
    w0: Any,
    dilation: Any,
    wanted: Any,
    words: Any,
    sizes: Any,
) -> None:
    """Takes the eroded mask off each wanted mask, and counts what is left of every mask.

    Args:
        counts: int64 [n], see `Shapes`.
        x: int32 [pieces], as `y0` and `y1`.
        y0: int32 [pieces].
        y1: int32 [pieces].
        base: int64 [n], as `stride`, `x0`, `x1` and `w0`: see `Planes`.
        stride: int64 [n].
        x0: int64 [n].
        x1: int64 [n].
        w0: int64 [n].
        dilation: int64 [n], pixels.
        wanted: bool [n].
        words: uint64, the masks; their bands afterwards.
        sizes: int64 [n], filled: pixels of each band.
    """
    inner = np.empty(1, np.uint64)
    piece = 0
    for i in range(len(counts)):
        columns, height, d = x1[i] - x0[i], stride[i], dilation[i]
        size = columns * height
        if wanted[i] and columns > 2 * d:
            if len(inner) < size:
                inner = np.empty(2 * size, np.uint64)
            inner[:size] = 0
            start = -x0[i] * height - w0[i]
            there = False
            for k in range(piece, piece + counts[i]):
                if y1[k] - y0[k] > 2 * d:
                    there = True
                    _set(inner, start + x[k] * height, np.int64(y0[k]) + d, np.int64(y1[k]) - d)
            if there:
                # The AND of 2 d + 1 neighbouring columns, by doubling.
                left, done, span = size, 1, 2 * d + 1
                while done < span:
                    step = min(done, span - done)
                    left -= step * height
                    for k in range(left):
                        inner[k] &= inner[k + step * height]
                    done += step
                begin = base[i] + d * height
                for k in range(left):
                    words[begin + k] &= ~inner[k]
        piece += counts[i]
        total = np.int64(0)
        for k in range(base[i], base[i] + size):
            total += _bits(words[k])
        sizes[i] = total


@jit(
    "void(uint64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " uint64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], int64[::1], int64[::1])"
)
def intersections(
    words_a: Any,
    base_a: Any,
    stride_a: Any,
    x0_a: Any,
    x1_a: Any,
    w0_a: Any,
    words_b: Any,
    base_b: Any,
    stride_b: Any,
    x0_b: Any,
    x1_b: Any,
    w0_b: Any,
    ia: Any,
    ib: Any,
    out: Any,
) -> None:
    """Counts the common pixels of pairs of masks.

    Args:
        words_a: uint64, first masks, with the other columns of their `Planes`.
        base_a: int64.
        stride_a: int64.
        x0_a: int64.
        x1_a: int64.
        w0_a: int64.
        words_b: uint64, second masks.
        base_b: int64.
        stride_b: int64.
        x0_b: int64.
        x1_b: int64.
        w0_b: int64.
        ia: int64 [m].
        ib: int64 [m].
        out: int64 [m], filled.
    """
    for k in range(len(ia)):
        a, b = ia[k], ib[k]
        x0, x1 = max(x0_a[a], x0_b[b]), min(x1_a[a], x1_b[b])
        w0 = max(w0_a[a], w0_b[b])
        rows = min(w0_a[a] + stride_a[a], w0_b[b] + stride_b[b]) - w0
        at_a = base_a[a] + (x0 - x0_a[a]) * stride_a[a] + w0 - w0_a[a]
        at_b = base_b[b] + (x0 - x0_b[b]) * stride_b[b] + w0 - w0_b[b]
        total = np.int64(0)
        for _ in range(x0, x1):
            for row in range(rows):
                total += _bits(words_a[at_a + row] & words_b[at_b + row])
            at_a += stride_a[a]
            at_b += stride_b[b]
        out[k] = total
