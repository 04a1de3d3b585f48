"""COCO run-length masks, many at a time, in plain NumPy.

A mask is a list of run lengths of its pixels read column by column (index ``x * height + y``); the
first run is background. The compressed form writes each length, as its difference to the length two
places before (from the fourth on), in groups of five bits, least significant first: one character
``48 + bits`` a group, bit 5 set when another group follows, bit 4 of the last group being the sign.

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
# Sides of an image: with them lengths and their sums stay far inside int64.
MAX_SIDE = 1 << 20


class RleError(ValueError):
    """A mask that is not a valid run-length code.

    Attributes:
        index: place of the mask in the batch that was decoded.
        reason: what is wrong with it.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
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
        return cls(
            data, _offsets(lengths), np.asarray(heights, np.int64), np.asarray(widths, np.int64)
        )

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
        offsets: int64 [n + 1], which runs belong to which mask. Runs of a mask are sorted, not
            empty, and never touch.
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


# Value of a number's last character: five bits, the upper one being the sign.
_LAST = np.concatenate([np.arange(16), np.arange(-16, 0), np.zeros(32)]).astype(np.int64)


def _read_numbers(data: Bytes, offsets: Int) -> tuple[Int, Int]:
    """Reads the variable-length numbers of strings: values int64 [m] and their offsets by string, int64 [n + 1]."""
    bits = data - np.uint8(48)  # wraps below 48, so one comparison finds every foreign character
    if len(bits) and int(bits.max()) > 63:
        at = int(np.flatnonzero(bits > 63)[0])
        index = _owner(offsets, at)
        character, where = chr(int(data[at])), at - int(offsets[index])
        printed = (
            "; of bytes in Python, write counts.decode(), not str(counts)"
            if where == 1 and character in "'\""
            else ""
        )
        raise RleError(index, f"character {character!r} at {where} is not of the code{printed}")
    more = bits > 31
    last = np.flatnonzero(~more)
    filled = np.flatnonzero(np.diff(offsets))
    cut = filled[more[offsets[filled + 1] - 1]]
    if len(cut):
        raise RleError(int(cut[0]), "the last number is cut off")
    values = _LAST[bits[last]]
    # From the last character back. Before the first number comes the last character of all, which
    # ends a number.
    alive = np.flatnonzero(more[last - 1])
    for step in range(1, _MAX_GROUPS + 1):
        if not len(alive):
            break
        if step == _MAX_GROUPS:
            raise RleError(
                _owner(offsets, int(last[alive[0]])), "a number is longer than any image"
            )
        place = last[alive] - step
        values[alive] = (values[alive] << 5) | (bits[place] & 31)
        alive = alive[more[place - 1]]
    return values, np.searchsorted(last, offsets)


def _owner(offsets: Int, at: int) -> int:
    """Returns the part that element `at` belongs to."""
    return int(np.searchsorted(offsets, at, side="right")) - 1


def _undo_differences(values: Int, offsets: Int) -> tuple[Int, Int, Int]:
    """Turns written differences into run lengths.

    A difference refers to the length two places before, so background and foreground are two
    chains; the strings are laid out as pairs (background, foreground), the last one filled up with
    0.

    Args:
        values: int64 [m].
        offsets: int64 [n + 1]; no string is empty.

    Returns:
        Background and foreground lengths, int64 [pairs] each, and the offsets of the pairs, int64
        [n + 1].
    """
    sizes = np.diff(offsets)
    counts = (sizes + 1) >> 1
    pairs = _offsets(counts)
    odd = np.flatnonzero(sizes & 1)
    table = np.zeros(2 * int(pairs[-1]), np.int64)
    real = np.ones(len(table), bool)
    real[2 * pairs[odd + 1] - 1] = False
    table[real] = values
    first = pairs[:-1]
    written = table[0::2][first]
    background, foreground = np.cumsum(table[0::2]), np.cumsum(table[1::2])
    before = foreground[first] - table[1::2][first]
    # The first background length is no part of its chain: the difference rule begins with the
    # fourth number.
    background -= np.repeat(background[first], counts)
    background[first] = written
    foreground -= np.repeat(before, counts)
    foreground[pairs[odd + 1] - 1] = 0
    return background, foreground, pairs


def decode_runs(batch: RleBatch) -> Runs:
    """Decodes compressed strings to foreground runs.

    Args:
        batch: the strings and the image sizes.

    Raises:
        RleError: a string with a foreign character, a cut number, a negative length, or lengths
            that do not add up to height x width.
    """
    sizes = np.diff(batch.offsets)
    check_sizes(batch.heights, batch.widths)
    if (sizes == 0).any():
        return _decode_with_empty(batch, sizes > 0)
    values, offsets = _read_numbers(batch.data, batch.offsets)
    if not len(values):
        return Runs(values, values, np.zeros(len(batch) + 1, np.int64), batch.heights, batch.widths)
    background, foreground, pairs = _undo_differences(values, offsets)
    negative = np.minimum(background, foreground) < 0
    if negative.any():
        raise RleError(_owner(pairs, int(np.argmax(negative))), "a run length is negative")
    counts = np.diff(pairs)
    ends = np.cumsum(background + foreground)
    totals = ends[pairs[1:] - 1]
    totals[1:] -= ends[pairs[1:-1] - 1]
    _check_totals(totals, batch.heights, batch.widths)
    ends -= np.repeat(ends[pairs[1:] - 1] - totals, counts)
    return _join_runs(background, foreground, ends, pairs, batch)


def _join_runs(background: Int, foreground: Int, ends: Int, pairs: Int, batch: RleBatch) -> Runs:
    """Leaves out empty runs and joins those without background between them."""
    counts = np.diff(pairs)
    touches = background == 0
    touches[pairs[:-1]] = False
    starts = ends - foreground
    if touches.any():
        owner = np.repeat(np.arange(len(counts)), counts)
        filled = np.flatnonzero(foreground > 0)
        starts, ends, owner = starts[filled], ends[filled], owner[filled]
        begins = np.ones(len(filled), bool)
        begins[1:] = (starts[1:] != ends[:-1]) | (owner[1:] != owner[:-1])
        starts, ends = starts[begins], ends[np.append(begins[1:], True)] if len(filled) else ends
        counts = np.bincount(owner[begins], minlength=len(counts)).astype(np.int64)
    elif int(foreground.min()) == 0:
        real = foreground > 0
        kept = _offsets(real.astype(np.int64))
        starts, ends, counts = starts[real], ends[real], kept[pairs[1:]] - kept[pairs[:-1]]
    return Runs(starts, ends, _offsets(counts), batch.heights, batch.widths)


def _decode_with_empty(batch: RleBatch, filled: NDArray[np.bool_]) -> Runs:
    """Decodes a batch with empty strings, the code of a picture without pixels."""
    wrong = np.flatnonzero(~filled & (batch.heights * batch.widths != 0))
    if len(wrong):
        raise RleError(int(wrong[0]), "run lengths add up to 0, the string is empty")
    rows = np.flatnonzero(filled)
    try:
        some = decode_runs(batch.take(rows))
    except RleError as error:
        raise RleError(int(rows[error.index]), error.reason) from None
    counts = np.zeros(len(batch), np.int64)
    counts[rows] = np.diff(some.offsets)
    return Runs(some.starts, some.ends, _offsets(counts), batch.heights, batch.widths)


def check_sizes(heights: Int, widths: Int) -> None:
    """Checks image sizes.

    Raises:
        RleError: for the first that is negative or beyond any image.
    """
    wrong = (heights < 0) | (widths < 0) | (np.maximum(heights, widths) > MAX_SIDE)
    if wrong.any():
        raise RleError(int(np.argmax(wrong)), "not a valid image size")


def _check_totals(totals: Int, heights: Int, widths: Int) -> None:
    wrong = np.flatnonzero(totals != heights * widths)
    if len(wrong):
        i = int(wrong[0])
        raise RleError(i, f"run lengths add up to {totals[i]}, not to {heights[i]} x {widths[i]}")


def encode_uncompressed(lengths: Int, height: int, width: int) -> bytes:
    """Returns the compressed string of run lengths (int64 [m], background first).

    Raises:
        RleError: a length is negative, or they do not add up to height x width.
    """
    if len(lengths) and int(lengths.min()) < 0:
        raise RleError(0, "a run length is negative")
    _check_totals(lengths.sum(keepdims=True), np.array([height]), np.array([width]))
    return encode_lengths(lengths, np.array([0, len(lengths)], np.int64))[0].tobytes()


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
