"""COCO run-length masks, many at a time, in plain NumPy.

A mask is a list of run lengths of its pixels read column by column (index ``x * height + y``); the first run is
background. The compressed form writes each length, as its difference to the length two places before (from the fourth
on), in groups of five bits, least significant first: one character ``48 + bits`` a group, bit 5 set when another group
follows, bit 4 of the last group being the sign.

No C code sees these strings: a malformed one raises `RleError` and can do nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int = NDArray[np.int64]
Bytes = NDArray[np.uint8]

# Seven groups hold 35 bits; more would be a number beyond any image.
_MAX_GROUPS = 7
# Lengths are summed in int64; an image of this many pixels is far from its limit.
MAX_PIXELS = 1 << 40


class RleError(ValueError):
    """A mask that is no valid run-length code.

    Attributes:
        index: place of the mask in the batch that was decoded.
        reason: what is wrong with it.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"mask {index}: {reason}")
        self.index = index
        self.reason = reason


def ragged_arange(counts: Int) -> Int:
    """Returns ``0..c-1`` for each c of `counts`, joined: int64 [sum(counts)]."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) - np.repeat(ends - counts, counts)


def _offsets(counts: Int) -> Int:
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out


@dataclass(frozen=True)
class RleBatch:
    """Compressed run-length strings of n masks, not yet looked at.

    Attributes:
        data: uint8 [bytes], the strings one after the other.
        offsets: int64 [n + 1], where each begins and ends in `data`.
        heights: int64 [n], pixels.
        widths: int64 [n], pixels.
    """

    data: Bytes
    offsets: Int
    heights: Int
    widths: Int

    def __len__(self) -> int:
        """Returns n."""
        return len(self.heights)

    @classmethod
    def of(cls, strings: Sequence[bytes], heights: Any, widths: Any) -> RleBatch:
        """Joins `strings` (ASCII bytes) of masks of the given sizes."""
        lengths = np.fromiter(map(len, strings), np.int64, len(strings))
        data = np.frombuffer(b"".join(strings), np.uint8)
        return cls(data, _offsets(lengths), np.asarray(heights, np.int64), np.asarray(widths, np.int64))

    @classmethod
    def concat(cls, parts: Sequence[RleBatch]) -> RleBatch:
        """Joins batches in the given order."""
        if not parts:
            return cls.of([], [], [])
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        data = np.concatenate([part.data for part in parts])
        heights = np.concatenate([part.heights for part in parts])
        widths = np.concatenate([part.widths for part in parts])
        return cls(data, _offsets(lengths), heights, widths)

    def take(self, index: Int) -> RleBatch:
        """Returns the masks at `index` (int64 [m]), in that order."""
        index = np.asarray(index, np.int64)
        starts = self.offsets[index]
        lengths = self.offsets[index + 1] - starts
        if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
            data = self.data[starts[0] : starts[0] + int(lengths.sum())]
        else:
            data = self.data[np.repeat(starts, lengths) + ragged_arange(lengths)]
        return RleBatch(data, _offsets(lengths), self.heights[index], self.widths[index])

    def string(self, i: int) -> bytes:
        """Returns the i-th string."""
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()


@dataclass(frozen=True)
class Runs:
    """Foreground runs of n masks.

    Attributes:
        starts: int64 [runs], first pixel of each run, column-major index in its image.
        ends: int64 [runs], one past the last pixel.
        offsets: int64 [n + 1], which runs belong to which mask. Runs of a mask are sorted, not empty, and never touch.
        heights: int64 [n], pixels.
        widths: int64 [n], pixels.
    """

    starts: Int
    ends: Int
    offsets: Int
    heights: Int
    widths: Int

    def __len__(self) -> int:
        """Returns n."""
        return len(self.heights)

    def owner(self) -> Int:
        """Returns the mask of each run: int64 [runs]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def areas(self) -> Int:
        """Returns the number of foreground pixels: int64 [n]."""
        total = _offsets(self.ends - self.starts)
        return total[self.offsets[1:]] - total[self.offsets[:-1]]

    def boxes(self) -> Int:
        """Returns tight boxes x0, y0, x1, y1, half-open: int64 [n, 4]; zeros for an empty mask."""
        out = np.zeros((len(self), 4), np.int64)
        filled = np.flatnonzero(np.diff(self.offsets))
        if not len(filled):
            return out
        first, last = self.offsets[filled], self.offsets[filled + 1] - 1
        height = self.heights[filled]
        rows = self.heights[self.owner()]
        column0, top = np.divmod(self.starts, rows)
        column1, bottom = np.divmod(self.ends - 1, rows)
        # A run that goes on into the next column touches the last row and the first one.
        wraps = column1 > column0
        out[filled, 0] = self.starts[first] // height
        out[filled, 2] = (self.ends[last] - 1) // height + 1
        out[filled, 1] = np.minimum.reduceat(np.where(wraps, 0, top), first)
        out[filled, 3] = np.maximum.reduceat(np.where(wraps, rows - 1, bottom), first) + 1
        return out


def _read_numbers(data: Bytes, offsets: Int) -> tuple[Int, Int]:
    """Reads the variable-length numbers of strings: values int64 [m] and their offsets by string, int64 [n + 1]."""
    bits = data - np.uint8(48)  # wraps below 48, so one comparison finds every foreign character
    if len(bits) and int(bits.max()) > 63:
        at = int(np.flatnonzero(bits > 63)[0])
        index = int(np.searchsorted(offsets, at, side="right")) - 1
        raise RleError(index, f"character {chr(int(data[at]))!r} at {at - int(offsets[index])} is not of the code")
    final = (bits & 32) == 0
    last = np.flatnonzero(final)
    ends = offsets[1:]
    filled = np.flatnonzero(np.diff(offsets))
    cut = filled[~final[ends[filled] - 1]]
    if len(cut):
        raise RleError(int(cut[0]), "the last number is cut off")
    begin = np.empty_like(last)
    begin[:1] = 0
    begin[1:] = last[:-1] + 1
    groups = last - begin + 1
    if len(groups) and int(groups.max()) > _MAX_GROUPS:
        at = int(begin[int(np.argmax(groups > _MAX_GROUPS))])
        raise RleError(int(np.searchsorted(offsets, at, side="right")) - 1, "a number is longer than any image")
    values = (bits[begin] & 31).astype(np.int64)
    for k in range(1, int(groups.max(initial=1))):
        more = np.flatnonzero(groups > k)
        values[more] |= (bits[begin[more] + k] & 31).astype(np.int64) << (5 * k)
    negative = np.flatnonzero(bits[last] & 16)
    values[negative] -= np.int64(1) << (5 * groups[negative])
    return values, np.searchsorted(last, offsets)


def _undo_differences(values: Int, offsets: Int) -> Int:
    """Turns the written differences into run lengths, in each string on its own."""
    place = ragged_arange(np.diff(offsets))
    out = values.copy()
    for parity, first in ((1, 1), (0, 2)):
        chain = np.flatnonzero(((place & 1) == parity) & (place >= first))
        if not len(chain):
            continue
        running = np.cumsum(values[chain])
        begins = np.flatnonzero(place[chain] == first)
        base = np.where(begins > 0, running[begins - 1], 0)
        sizes = np.diff(np.append(begins, len(chain)))
        out[chain] = running - np.repeat(base, sizes)
    return out


def decode_lengths(batch: RleBatch) -> tuple[Int, Int]:
    """Decodes compressed strings to run lengths.

    Args:
        batch: the strings and the image sizes.

    Returns:
        Lengths int64 [m], background first in each mask, and offsets int64 [n + 1].

    Raises:
        RleError: a string with a foreign character, a cut number, a negative length, or lengths that do not add up to
            height x width.
    """
    values, offsets = _read_numbers(batch.data, batch.offsets)
    lengths = _undo_differences(values, offsets)
    check_lengths(lengths, offsets, batch.heights, batch.widths)
    return lengths, offsets


def check_lengths(lengths: Int, offsets: Int, heights: Int, widths: Int) -> None:
    """Checks that run lengths are not negative and fill the image.

    Args:
        lengths: int64 [m], run lengths of n masks.
        offsets: int64 [n + 1].
        heights: int64 [n].
        widths: int64 [n].

    Raises:
        RleError: for the first mask that is wrong.
    """
    if len(heights) and (min(int(heights.min()), int(widths.min())) < 0 or int(heights.max()) > MAX_PIXELS):
        raise RleError(int(np.argmax((heights < 0) | (widths < 0) | (heights > MAX_PIXELS))), "no possible size")
    if len(lengths) and int(lengths.min()) < 0:
        at = int(np.argmax(lengths < 0))
        raise RleError(int(np.searchsorted(offsets, at, side="right")) - 1, "a run length is negative")
    running = _offsets(lengths)
    totals = running[offsets[1:]] - running[offsets[:-1]]
    wrong = np.flatnonzero(totals != heights * widths)
    if len(wrong):
        i = int(wrong[0])
        raise RleError(i, f"run lengths add up to {totals[i]}, not to {heights[i]} x {widths[i]}")


def runs_of_lengths(lengths: Int, offsets: Int, heights: Int, widths: Int) -> Runs:
    """Turns run lengths (checked) into foreground runs; empty runs go and touching ones are joined."""
    sizes = np.diff(offsets)
    running = np.cumsum(lengths)
    base = np.zeros(len(sizes), np.int64)
    inner = offsets[:-1] > 0
    base[inner] = running[offsets[:-1][inner] - 1]
    ends = running - np.repeat(base, sizes)
    place = ragged_arange(sizes)
    foreground = np.flatnonzero(((place & 1) == 1) & (lengths > 0))
    owner = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)[foreground]
    start, end = ends[foreground] - lengths[foreground], ends[foreground]
    touches = np.zeros(len(start), bool)
    touches[1:] = (start[1:] == end[:-1]) & (owner[1:] == owner[:-1])
    if touches.any():
        keep_start = ~touches
        keep_end = np.append(~touches[1:], True)
        start, end, owner = start[keep_start], end[keep_end], owner[keep_start]
    counts = np.bincount(owner, minlength=len(sizes)).astype(np.int64)
    return Runs(start, end, _offsets(counts), heights, widths)


def decode_runs(batch: RleBatch) -> Runs:
    """Decodes compressed strings to foreground runs (errors as `decode_lengths`)."""
    lengths, offsets = decode_lengths(batch)
    return runs_of_lengths(lengths, offsets, batch.heights, batch.widths)


def encode_lengths(lengths: Int, offsets: Int) -> tuple[Bytes, Int]:
    """Writes run lengths as compressed strings, byte for byte as pycocotools does.

    Args:
        lengths: int64 [m], not negative.
        offsets: int64 [n + 1].

    Returns:
        The joined strings, uint8 [bytes], and their offsets, int64 [n + 1].
    """
    place = ragged_arange(np.diff(offsets))
    values = lengths.copy()
    delta = np.flatnonzero(place > 2)
    values[delta] -= lengths[delta - 2]
    groups: list[Bytes] = []
    written: list[Int] = []
    alive = np.arange(len(values), dtype=np.int64)
    rest = values
    while len(alive):
        low = (rest & 31).astype(np.uint8)
        rest = rest >> 5
        more = np.where(low & 16, rest != -1, rest != 0)
        groups.append(low | (more.astype(np.uint8) << 5))
        written.append(alive)
        alive, rest = alive[more], rest[more]
    sizes = np.zeros(len(values), np.int64)
    for index in written:
        sizes[index] += 1
    begin = _offsets(sizes)
    out = np.empty(int(begin[-1]), np.uint8)
    for k, (index, group) in enumerate(zip(written, groups, strict=True)):
        out[begin[index] + k] = group + np.uint8(48)
    return out, begin[offsets]
