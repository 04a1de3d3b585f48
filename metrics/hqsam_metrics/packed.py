"""Masks as bit columns: drawing, box erosion and intersection counts of many masks in a few NumPy calls.

A mask is kept on the words of its bounding box: column x of the image is a row of 64-bit words, bit b of word w being
pixel y = 64 * w + b. Words keep the image's own alignment, so two masks of one image can be combined word by word
whatever their boxes. All masks that share a number of words a column stand one below the other in one array, with an
empty column between them: an erosion across columns is then a handful of shifted ANDs for all of them at once, and
the erosion along a column is nothing but shorter runs. Cost: one bit a pixel of the boxes, whatever the dilation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqsam_metrics.rle import Int, Runs, ragged_arange

Words = NDArray[np.uint64]
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
# Words handled in one call when pairs are counted: bounds the index arrays to some tens of MB.
_PAIR_WORDS = 1 << 20


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
        return total[self.base + self.stride * (self.x1 - self.x0)] - total[self.base]

    def with_words(self, words: Words) -> Planes:
        """Returns the same layout with other bits."""
        return Planes(words, self.base, self.stride, self.x0, self.x1, self.w0)


def layout(boxes: Int) -> Planes:
    """Lays out empty planes for masks with the given boxes.

    Args:
        boxes: int64 [n, 4], x0 y0 x1 y1, half-open; an empty box takes one column.

    Returns:
        Planes with all bits 0. Masks of equal stride are neighbours in memory.
    """
    x0, y0, x1, y1 = boxes.T
    w0 = y0 >> 6
    stride = np.maximum(((y1 - 1) >> 6) - w0 + 1, 1)
    sizes = (x1 - x0 + 1) * stride  # one empty column after each mask
    order = np.argsort(stride, kind="stable")
    base = np.empty(len(boxes), np.int64)
    ends = np.cumsum(sizes[order])
    base[order] = ends - sizes[order]
    total = int(ends[-1]) if len(ends) else 0
    return Planes(np.zeros(total + 1, np.uint64), base, stride, x0, x1, w0)


def split_columns(runs: Runs) -> tuple[Int, Int, Int, Int]:
    """Cuts runs at the ends of the image columns.

    Args:
        runs: foreground runs of n masks.

    Returns:
        mask (int64 [p]), column x, first row y0 and one past the last row y1 of every piece.
    """
    owner = runs.owner()
    height = runs.heights[owner]
    first = runs.starts // height
    last = (runs.ends - 1) // height
    pieces = last - first + 1
    step = ragged_arange(pieces)
    x = np.repeat(first, pieces) + step
    h = np.repeat(height, pieces)
    top = np.where(step == 0, np.repeat(runs.starts, pieces) - x * h, 0)
    bottom = np.minimum(np.repeat(runs.ends, pieces) - x * h, h)
    return np.repeat(owner, pieces), x, top, bottom


def draw(planes: Planes, mask: Int, x: Int, y0: Int, y1: Int) -> Words:
    """Draws column pieces.

    Every end of a piece flips all later bits. Within a word that is one XOR; a later word is flipped when the number of
    ends before it is odd. So the cost does not depend on the length of the pieces.

    Args:
        planes: the layout.
        mask: int64 [p], which mask.
        x: int64 [p], image column.
        y0: int64 [p], first row.
        y1: int64 [p], one past the last row.

    Returns:
        uint64 words in the layout of `planes`.
    """
    out = np.zeros_like(planes.words)
    column = (planes.base[mask] + (x - planes.x0[mask]) * planes.stride[mask] - planes.w0[mask]) << 6
    bits = np.concatenate([column + y0, column + y1])
    word = bits >> 6
    np.bitwise_xor.at(out, word, _ALL << (bits & 63).astype(np.uint64))
    ends = np.bincount(word, minlength=len(out))
    before = np.cumsum(ends) - ends
    out[(before & 1) == 1] ^= _ALL
    return out


def _and_columns(words: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """ANDs every `size` neighbouring rows of [columns, stride] (valid part only), doubling at each step."""
    done = 1
    while 2 * done <= size:
        words = words[:-done] & words[done:]
        done *= 2
    rest = size - done
    return words[:-rest] & words[rest:] if rest else words


def erode(planes: Planes, dilation: int, mask: Int, x: Int, y0: Int, y1: Int) -> Words:
    """Erodes masks by a (2 dilation + 1) square; outside the image is background.

    Args:
        planes: layout of the masks.
        dilation: pixels, the same for all.
        mask: int64 [p], owner of each column piece (see `split_columns`).
        x: int64 [p].
        y0: int64 [p].
        y1: int64 [p].

    Returns:
        uint64 words of the eroded masks in the same layout.
    """
    stays = np.flatnonzero(y1 - y0 > 2 * dilation)
    words = draw(planes, mask[stays], x[stays], y0[stays] + dilation, y1[stays] - dilation)
    out = np.zeros_like(words)
    size = 2 * dilation + 1
    for stride in np.unique(planes.stride):
        same = np.flatnonzero(planes.stride == stride)
        begin = int(planes.base[same].min())
        columns = int((planes.x1[same] - planes.x0[same] + 1).sum())
        if columns < size:
            continue
        end = begin + columns * int(stride)
        inner = _and_columns(words[begin:end].reshape(columns, int(stride)), size).reshape(-1)
        at = begin + dilation * int(stride)
        out[at : at + len(inner)] = inner
    return out


def draw_masks(runs: Runs, boxes: Int) -> tuple[Planes, tuple[Int, Int, Int, Int]]:
    """Draws masks on planes of their boxes; returns them and the column pieces (for `erode`)."""
    pieces = split_columns(runs)
    planes = layout(boxes)
    return planes.with_words(draw(planes, *pieces)), pieces


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
            out[part] = _count_rectangles(a.words, b.words, starts, steps, columns[part], rows[part])
    return out


def _count_rectangles(
    a: Words, b: Words, starts: tuple[Int, Int], steps: tuple[Int, Int], columns: Int, rows: Int
) -> Int:
    """Counts common bits of word rectangles that begin at `starts` and go on by `steps` words a column."""
    column = ragged_arange(columns)
    height = np.repeat(rows, columns)
    row = ragged_arange(height)
    at_a = np.repeat(np.repeat(starts[0], columns) + column * np.repeat(steps[0], columns), height) + row
    at_b = np.repeat(np.repeat(starts[1], columns) + column * np.repeat(steps[1], columns), height) + row
    common = np.bitwise_count(a[at_a] & b[at_b])
    size = columns * rows
    return np.add.reduceat(common, np.cumsum(size) - size, dtype=np.int64)
