"""Masks as bit columns: drawing, box erosion and intersection counts of many masks in a few NumPy calls.

A mask is kept on the words of its bounding box: column x of the image is a row of 64-bit words, bit
b of word w being pixel y = 64 * w + b. Words keep the image's own alignment, so two masks of one
image can be combined word by word whatever their boxes. Masks with equal numbers of words a column
and equal band width stand one below the other, with an empty column between them: an erosion across
columns is then a handful of shifted ANDs for all of them at once, and the erosion along a column is
nothing but shorter pieces. Cost: one bit a pixel of the boxes, whatever the dilation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from hqsam_base import compiled
from hqsam_base.runs import Int, RleBatch, Runs, check_sizes, decode_runs, ragged_arange

Words = NDArray[np.uint64]
Int32 = NDArray[np.int32]
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)
# Words handled in one call when pairs are counted: bounds the index arrays to some tens of MB.
_PAIR_WORDS = 1 << 20
# From this many words on, a pair is counted by itself: no index arrays, and the call costs less
# than the counting.
_LARGE = 4096
# Pieces for which the compiled decoder takes room at once; few masks of huge images need more.
_MOST_PIECES = 1 << 24
KERNELS = "hqsam_metrics.masks.kernels"


@dataclass(frozen=True)
class Shapes:
    """Decoded masks as column pieces, measured.

    Attributes:
        heights: int64 [n], of the image.
        widths: int64 [n], of the image.
        counts: int64 [n], pieces of each mask.
        x: int32 [pieces], image column; pieces of a mask are sorted.
        y0: int32 [pieces], first row.
        y1: int32 [pieces], one past the last row.
        areas: int64 [n], pixels.
        boxes: int64 [n, 4], tight box x0 y0 x1 y1, half-open; zeros for an empty mask.
    """

    heights: Int
    widths: Int
    counts: Int
    x: Int32
    y0: Int32
    y1: Int32
    areas: Int
    boxes: Int

    def __len__(self) -> int:
        """Returns n."""
        return len(self.heights)

    @classmethod
    def decoded(cls, batch: RleBatch) -> Shapes:
        """Decodes run-length strings and measures the masks.

        Raises:
            RleError: a string is not valid, see `hqsam_base.runs.decode_runs`.
        """
        kernels = compiled.loaded(KERNELS)
        n, most = len(batch), len(batch.data) + int(batch.widths.sum())
        if kernels is None or most > _MOST_PIECES:
            return cls.of(decode_runs(batch))
        check_sizes(batch.heights, batch.widths)
        counts, areas, boxes = (np.empty(shape, np.int64) for shape in (n, n, (n, 4)))
        pieces = [np.empty(most, np.int32) for _ in range(3)]
        sizes = (np.ascontiguousarray(side) for side in (batch.heights, batch.widths))
        data = np.require(batch.data, None, ["C", "W"])
        total = kernels.decode(data, batch.offsets, *sizes, counts, *pieces, areas, boxes)
        if total < 0:
            return cls.of(decode_runs(batch))  # which says what is wrong, if something is
        x, y0, y1 = (values[:total].copy() for values in pieces)
        return cls(batch.heights, batch.widths, counts, x, y0, y1, areas, boxes)

    @classmethod
    def of(cls, runs: Runs) -> Shapes:
        """Cuts runs at the ends of the image columns and measures the masks."""
        runs_of = np.diff(runs.offsets)
        same = len(runs) > 0 and bool((runs.heights == runs.heights[0]).all())
        # Division by one number is several times as fast as by an array.
        height = runs.heights[0] if same else np.repeat(runs.heights, runs_of)
        x = runs.starts // height
        y0 = runs.starts - x * height
        y1 = y0 + (runs.ends - runs.starts)
        counts = runs_of
        if (y1 > height).any():
            pieces = (y1 - 1) // height + 1
            step = ragged_arange(pieces)
            tall = np.full(len(step), height) if same else np.repeat(height, pieces)
            x = np.repeat(x, pieces) + step
            y0, y1 = (
                np.where(step == 0, np.repeat(y0, pieces), 0),
                np.repeat(y1, pieces) - step * tall,
            )
            y1 = np.minimum(y1, tall)
            total = np.append(0, np.cumsum(pieces))  # of the pieces of each mask's runs
            counts = total[runs.offsets[1:]] - total[runs.offsets[:-1]]
        x, y0, y1 = (values.astype(np.int32) for values in (x, y0, y1))
        boxes = _boxes(counts, x, y0, y1)
        return cls(runs.heights, runs.widths, counts, x, y0, y1, runs.areas(), boxes)

    def take(self, index: Int) -> Shapes:
        """Returns the masks at `index` (int64 [m])."""
        if len(index) == len(self) and np.array_equal(index, np.arange(len(self))):
            return self
        counts = self.counts[index]
        begin = np.cumsum(self.counts) - self.counts
        at = np.repeat(begin[index], counts) + ragged_arange(counts)
        return Shapes(
            self.heights[index],
            self.widths[index],
            counts,
            self.x[at],
            self.y0[at],
            self.y1[at],
            self.areas[index],
            self.boxes[index],
        )


def _boxes(counts: Int, x: Int32, y0: Int32, y1: Int32) -> Int:
    out = np.zeros((len(counts), 4), np.int64)
    filled = np.flatnonzero(counts)
    if len(filled):
        ends = np.cumsum(counts)[filled]
        begins = ends - counts[filled]
        out[filled, 0] = x[begins]
        out[filled, 2] = x[ends - 1] + 1
        out[filled, 1] = np.minimum.reduceat(y0, begins)
        out[filled, 3] = np.maximum.reduceat(y1, begins)
    return out


@dataclass(frozen=True)
class Planes:
    """Bit columns of n masks.

    Attributes:
        words: uint64 [total], the columns of all masks; the last word is spare.
        base: int64 [n], place of each mask's first word.
        stride: int64 [n], words a column.
        x0: int64 [n], first image column.
        x1: int64 [n], one past the last image column.
        w0: int64 [n], first word row (y // 64).
    """

    words: Words
    base: Int
    stride: Int
    x0: Int
    x1: Int
    w0: Int

    def __len__(self) -> int:
        """Returns n."""
        return len(self.base)

    def counts(self) -> Int:
        """Returns the number of set bits of each mask: int64 [n]."""
        total = np.zeros(len(self.words) + 1, np.int64)
        np.cumsum(np.bitwise_count(self.words), out=total[1:])
        return np.asarray(
            total[self.base + self.stride * (self.x1 - self.x0)] - total[self.base], np.int64
        )

    def with_words(self, words: Words) -> Planes:
        """Returns the same layout with other bits."""
        return Planes(words, self.base, self.stride, self.x0, self.x1, self.w0)


@dataclass(frozen=True)
class Drawing:
    """Masks drawn on planes, with what is needed to erode them.

    Attributes:
        shapes: the masks.
        planes: their bits.
        group: int64 [n]; masks of one group and one stride are neighbours.
        word: int64 [pieces], place of word row 0 of the piece's column (it may lie before the
            mask's own words).
    """

    shapes: Shapes
    planes: Planes
    group: Int
    word: Int


def _layout(boxes: Int, group: Int) -> Planes:
    """Lays out empty planes; an empty box takes one column."""
    x0, y0, x1, y1 = boxes.T
    w0 = y0 >> 6
    stride = np.maximum(((y1 - 1) >> 6) - w0 + 1, 1)
    sizes = (x1 - x0 + 1) * stride  # one empty column after each mask
    order = np.lexsort((stride, group))
    base = np.empty(len(boxes), np.int64)
    ends = np.cumsum(sizes[order])
    base[order] = ends - sizes[order]
    total = int(ends[-1]) if len(ends) else 0
    return Planes(np.zeros(total + 1, np.uint64), base, stride, x0, x1, w0)


def _fill(size: int, word: Int, y0: Int32, y1: Int32) -> Words:
    """Draws column pieces: `word` is the place of word row 0 of each piece's column.

    Bits s .. e - 1 of a word are the number 2^e - 2^s (modulo 2^64), and pieces do not overlap, so
    a word is the sum of its pieces. Pieces that end in a later word fill the rest of their first
    one.
    """
    out = np.zeros(size, np.uint64)
    first, last = word + (y0 >> 6), word + (y1 >> 6)
    long = np.flatnonzero(first != last)
    bits = _ONE << (y1 & 63).astype(np.uint64)
    tail = bits[long] - _ONE
    bits[long] = 0
    bits -= _ONE << (y0 & 63).astype(np.uint64)
    out[first] = bits
    # Of several pieces in one word (neighbours, as pieces are sorted) the last was kept; the others
    # are added.
    shared = np.flatnonzero(first[1:] == first[:-1])
    if len(shared):
        np.add.at(out, first[shared], bits[shared])
    if len(long):
        first, last = first[long], last[long]
        out[last] += tail  # no two pieces reach the same word from before
        sizes = last - first - 1
        out[np.repeat(first + 1, sizes) + ragged_arange(sizes)] = _ALL
    return out


def draw(shapes: Shapes, group: Int | None = None) -> Drawing:
    """Draws masks.

    Args:
        shapes: n masks.
        group: int64 [n], masks with equal numbers may be eroded together; None: all.
    """
    group = np.zeros(len(shapes), np.int64) if group is None else group
    planes = _layout(shapes.boxes, group)
    kernels = compiled.loaded(KERNELS)
    if kernels is not None:
        where = (planes.base, planes.stride, *map(np.ascontiguousarray, (planes.x0, planes.w0)))
        kernels.fill(shapes.counts, shapes.x, shapes.y0, shapes.y1, *where, planes.words)
        return Drawing(shapes, planes, group, np.zeros(0, np.int64))
    start = planes.base - planes.x0 * planes.stride - planes.w0
    word = np.repeat(start, shapes.counts) + shapes.x * np.repeat(planes.stride, shapes.counts)
    words = _fill(len(planes.words), word, shapes.y0, shapes.y1)
    return Drawing(shapes, planes.with_words(words), group, word)


def erode(drawing: Drawing, dilation: Int, wanted: NDArray[np.bool_]) -> Words:
    """Erodes masks by a (2 dilation + 1) square; outside the image is background.

    Args:
        drawing: n masks.
        dilation: int64 [n], pixels, equal within a group.
        wanted: bool [n], masks that are needed; the others come out empty.

    Returns:
        uint64 words of the eroded masks in the same layout.
    """
    shapes, planes = drawing.shapes, drawing.planes
    sides = np.minimum(
        shapes.boxes[:, 2] - shapes.boxes[:, 0], shapes.boxes[:, 3] - shapes.boxes[:, 1]
    )
    thick = wanted & (sides > 2 * dilation)
    out = np.zeros_like(planes.words)
    if not thick.any():
        return out
    # A piece of a mask that is left out is never long enough.
    d = np.repeat(np.where(thick, dilation, 1 << 29).astype(np.int32), shapes.counts)
    stays = np.flatnonzero(shapes.y1 - shapes.y0 > 2 * d)
    d = d[stays]
    words = _fill(
        len(planes.words), drawing.word[stays], shapes.y0[stays] + d, shapes.y1[stays] - d
    )
    order = np.lexsort((planes.stride, drawing.group))
    key = np.stack([drawing.group[order], planes.stride[order]])
    for part in np.split(order, np.flatnonzero((np.diff(key) != 0).any(axis=0)) + 1):
        if thick[part].any():
            _erode_part(planes, part, int(dilation[part[0]]), words, out)
    return out


def _erode_part(planes: Planes, part: Int, dilation: int, words: Words, out: Words) -> None:
    """Erodes across columns the masks `part`, neighbours in memory with one stride, from `words` into `out`."""
    stride = int(planes.stride[part[0]])
    begin = int(planes.base[part].min())
    columns = int((planes.x1[part] - planes.x0[part] + 1).sum())
    inner = words[begin : begin + columns * stride].reshape(columns, stride)
    # ANDs every `size` neighbouring columns (valid part only), doubling at each step.
    done, size = 1, 2 * dilation + 1
    while 2 * done <= size:
        inner = inner[:-done] & inner[done:]
        done *= 2
    if done < size:
        inner = inner[: done - size] & inner[size - done :]
    at = begin + dilation * stride
    out[at : at + inner.size] = inner.reshape(-1)


def bands(drawing: Drawing, dilation: Int, wanted: NDArray[np.bool_]) -> tuple[Planes, Int]:
    """Makes boundary bands: of each mask the pixels that `erode` takes away.

    Args:
        drawing: n masks.
        dilation: int64 [n], pixels, equal within a group.
        wanted: bool [n], masks that are needed; the others stay whole.

    Returns:
        The bands, and the pixels of each: int64 [n].
    """
    shapes, planes = drawing.shapes, drawing.planes
    kernels = compiled.loaded(KERNELS)
    if kernels is None:
        band = planes.with_words(planes.words & ~erode(drawing, dilation, wanted))
        return band, band.counts()
    words, sizes = planes.words.copy(), np.empty(len(planes), np.int64)
    where = (planes.base, planes.stride, planes.x0, planes.x1, planes.w0, dilation)
    pieces = (shapes.counts, shapes.x, shapes.y0, shapes.y1)
    kernels.make_bands(*pieces, *map(np.ascontiguousarray, where), wanted, words, sizes)
    return planes.with_words(words), sizes


def intersections(a: Planes, b: Planes, ia: Int, ib: Int) -> Int:
    """Counts the common pixels of pairs of masks.

    Args:
        a: planes of the first masks.
        b: planes of the second masks.
        ia: int64 [m], index into `a`.
        ib: int64 [m], index into `b`; both masks of a pair belong to images of the same size.

    Returns:
        int64 [m], pixels.
    """
    kernels = compiled.loaded(KERNELS)
    if kernels is not None:
        out = np.empty(len(ia), np.int64)
        sides = [(p.base, p.stride, p.x0, p.x1, p.w0) for p in (a, b)]
        left, right = (map(np.ascontiguousarray, side) for side in sides)
        kernels.intersections(a.words, *left, b.words, *right, ia, ib, out)
        return out
    x0 = np.maximum(a.x0[ia], b.x0[ib])
    columns = np.maximum(np.minimum(a.x1[ia], b.x1[ib]) - x0, 0)
    w0 = np.maximum(a.w0[ia], b.w0[ib])
    rows = np.maximum(np.minimum(a.w0[ia] + a.stride[ia], b.w0[ib] + b.stride[ib]) - w0, 0)
    out = np.zeros(len(ia), np.int64)
    todo = np.flatnonzero(columns * rows)
    start_a = a.base[ia] + (x0 - a.x0[ia]) * a.stride[ia] + w0 - a.w0[ia]
    start_b = b.base[ib] + (x0 - b.x0[ib]) * b.stride[ib] + w0 - b.w0[ib]
    cut = np.cumsum((columns * rows)[todo]) // _PAIR_WORDS
    for part in np.split(todo, np.flatnonzero(np.diff(cut)) + 1):
        if len(part):
            steps = (a.stride[ia[part]], b.stride[ib[part]])
            starts = (start_a[part], start_b[part])
            out[part] = _count_rectangles(
                a.words, b.words, starts, steps, columns[part], rows[part]
            )
    return out


def _count_rectangles(
    a: Words, b: Words, starts: tuple[Int, Int], steps: tuple[Int, Int], columns: Int, rows: Int
) -> Int:
    """Counts common bits of word rectangles that begin at `starts` and go on by `steps` words a column."""
    large = columns * rows >= _LARGE
    out = np.zeros(len(columns), np.int64)
    for k in np.flatnonzero(large):
        views = []
        for words, start, step in zip((a, b), starts, steps, strict=True):
            # A view of the rectangle: its last column may end before a whole stride does.
            strides = (8 * int(step[k]), 8)
            views.append(
                as_strided(
                    words[int(start[k]) :],
                    (int(columns[k]), int(rows[k])),
                    strides,
                    writeable=False,
                )
            )
        out[k] = np.bitwise_count(views[0] & views[1]).sum(dtype=np.int64)
    small = np.where(large, 0, rows)
    for height in np.unique(small[~large]):
        same = np.flatnonzero(small == height)
        picked = [(start[same], step[same]) for start, step in zip(starts, steps, strict=True)]
        out[same] = _count_small(a, b, picked, columns[same], int(height))
    return out


def _count_small(
    a: Words, b: Words, places: list[tuple[Int, Int]], columns: Int, height: int
) -> Int:
    """Counts common bits of many rectangles of `height` words a column at once, one row of words after the other."""
    ends = np.cumsum(columns)
    begins = ends - columns
    column = np.arange(int(ends[-1]), dtype=np.int64)
    at_a, at_b = (
        np.repeat(start - step * begins, columns) + column * np.repeat(step, columns)
        for start, step in places
    )
    total = np.zeros(len(columns), np.int64)
    for _ in range(height):
        total += np.add.reduceat(np.bitwise_count(a[at_a] & b[at_b]), begins, dtype=np.int64)
        at_a += 1
        at_b += 1
    return total
