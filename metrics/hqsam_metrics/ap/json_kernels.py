"""A reader of result files that knows their usual form, compiled (see `hqsam_base.compiled`).

It accepts nothing that `json` would not accept, and gives up at whatever it does not know: the plain
reader then says what is wrong, or reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hqsam_base.compiled import jit

MORE, CLOSED, UNKNOWN = 0, 1, -1
"""What `scan` came to: the end of the text, the end of the list, or something that it does not know."""

FIELDS = 6
"""Numbers of a record, in this order: image id, category id, height, width, and where a score is that needs `float`."""

_TEN = 10.0 ** np.arange(23)  # powers of ten that are exact
_EXACT = 1 << 53


@jit()
def _space(text: Any, at: Any, end: Any) -> Any:
    while at < end and (text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@jit()
def _string(text: Any, at: Any, end: Any) -> Any:
    """Returns where the string that begins at `at` has its closing quote; -1: unknown, -2: it goes on."""
    if at >= end:
        return -2
    if text[at] != 34:
        return -1
    at += 1
    while at < end:
        if text[at] == 34:
            return at
        if text[at] < 32 or text[at] > 126 or text[at] == 92:
            return -1
        at += 1
    return -2


@jit()
def _number(text: Any, at: Any, end: Any, out: Any) -> Any:
    """Reads a number by JSON's grammar.

    Args:
        text: uint8.
        at: where it begins.
        end: of the text.
        out: int64 [4], filled: sign, digits as a whole number, how many of them follow the point (-1:
            no point and no exponent), whether that is the value (no exponent, at most 18 digits).

    Returns:
        Where it ends; -1: unknown, -2: it may go on.
    """
    sign, value, digits, after, whole = 1, np.int64(0), 0, -1, True
    if at < end and text[at] == 45:
        sign = -1
        at += 1
    if at < end and text[at] == 48:
        at += 1
    else:
        begin = at
        while at < end and 48 <= text[at] <= 57:
            value = value * 10 + (np.int64(text[at]) - 48) if digits < 18 else value
            digits += 1
            at += 1
        if at < end and at == begin:
            return -1
    if at < end and text[at] == 46:
        at += 1
        begin = at
        while at < end and 48 <= text[at] <= 57:
            value = value * 10 + (np.int64(text[at]) - 48) if digits < 18 else value
            if digits > 0 or text[at] != 48:
                digits += 1
            at += 1
        if at < end and at == begin:
            return -1
        after = at - begin
    if at < end and (text[at] == 101 or text[at] == 69):
        whole = False
        after = max(after, 0)
        at += 1
        if at < end and (text[at] == 43 or text[at] == 45):
            at += 1
        begin = at
        while at < end and 48 <= text[at] <= 57:
            at += 1
        if at < end and at == begin:
            return -1
    if at >= end:
        return -2
    out[0], out[1], out[2], out[3] = sign, value, after, whole and digits <= 18
    return at


@jit()
def _is(text: Any, begin: Any, end: Any, word: Any) -> Any:
    """Returns whether the text from `begin` to `end` is `word` (bytes)."""
    same = end - begin == len(word)
    for k in range(len(word) if same else 0):
        same &= text[begin + k] == word[k]
    return same


@jit()
def _skip(text: Any, at: Any, end: Any, number: Any) -> Any:
    """Steps over a value that is not wanted: a number, a plain text, true, false, null, a list of numbers.

    Returns where it ends; -1: unknown, -2: it goes on.
    """
    if at >= end:
        return -2
    if text[at] == 34:
        at = _string(text, at, end)
        return at + 1 if at >= 0 else at
    if text[at] == 91:
        at = _space(text, at + 1, end)
        if at < end and text[at] == 93:
            return at + 1
        while True:
            at = _number(text, at, end, number)
            if at < 0:
                return at
            at = _space(text, at, end)
            if at >= end:
                return -2
            if text[at] == 93:
                return at + 1
            if text[at] != 44:
                return -1
            at = _space(text, at + 1, end)
    if text[at] == 116 or text[at] == 102 or text[at] == 110:
        size = 5 if text[at] == 102 else 4
        if end - at < size:
            return -2
        word = _is(text, at, at + size, b"true") or _is(text, at, at + size, b"false")
        return at + size if word or _is(text, at, at + size, b"null") else -1
    return _number(text, at, end, number)


@jit()
def _mask(text: Any, at: Any, end: Any, number: Any, fields: Any, data: Any, used: Any) -> Any:
    """Reads an object of `size` and compressed `counts`; returns where it ends; -1: unknown, -2: it goes on."""
    if at >= end:
        return -2
    if text[at] != 123:
        return -1
    at = _space(text, at + 1, end)
    sized = counted = False
    while True:
        close = _string(text, at, end)
        if close < 0:
            return close
        is_size, is_counts = _is(text, at + 1, close, b"size"), _is(text, at + 1, close, b"counts")
        at = _space(text, close + 1, end)
        if at >= end:
            return -2
        if text[at] != 58:
            return -1
        at = _space(text, at + 1, end)
        if at >= end:
            return -2
        if is_size:
            sized = True
            if text[at] != 91:
                return -1
            for side in range(2):
                at = _number(text, _space(text, at + 1, end), end, number)
                if at < 0:
                    return at
                if number[2] >= 0 or not number[3]:
                    return -1
                fields[2 + side] = number[0] * number[1]
                at = _space(text, at, end)
                if at >= end:
                    return -2
                if text[at] != (44 if side == 0 else 93):
                    return -1
            at += 1
        elif is_counts:
            counted = True
            if text[at] != 34:
                return -1
            at += 1
            place = used[0]
            while at < end and text[at] != 34:
                if text[at] < 32 or text[at] > 126:
                    return -1
                if text[at] == 92:
                    # The one escape that run-length codes need.
                    at += 1
                    if at >= end:
                        return -2
                    if text[at] != 92:
                        return -1
                data[place] = text[at]
                place += 1
                at += 1
            if at >= end:
                return -2
            used[1] = place
            at += 1
        else:
            return -1
        at = _space(text, at, end)
        if at >= end:
            return -2
        if text[at] == 125:
            return at + 1 if sized and counted else -1
        if text[at] != 44:
            return -1
        at = _space(text, at + 1, end)


@jit()
def _record(
    text: Any, at: Any, end: Any, number: Any, fields: Any, score: Any, data: Any, used: Any
) -> Any:
    """Reads the record that begins behind its brace; returns where it ends; -1: unknown, -2: it goes on."""
    seen = 0
    at = _space(text, at, end)
    while True:
        close = _string(text, at, end)
        if close < 0:
            return close
        kind = 0
        if _is(text, at + 1, close, b"image_id"):
            kind = 1
        elif _is(text, at + 1, close, b"category_id"):
            kind = 2
        elif _is(text, at + 1, close, b"score"):
            kind = 4
        elif _is(text, at + 1, close, b"segmentation"):
            kind = 8
        seen |= kind  # of a key that is there twice the last counts, as in `json`
        at = _space(text, close + 1, end)
        if at >= end:
            return -2
        if text[at] != 58:
            return -1
        at = _space(text, at + 1, end)
        if kind == 0:
            at = _skip(text, at, end, number)
        elif kind == 8:
            at = _mask(text, at, end, number, fields, data, used)
        else:
            begin = at
            at = _number(text, at, end, number)
            if at >= 0 and kind < 4:
                if number[2] >= 0 or not number[3]:
                    return -1
                fields[kind - 1] = number[0] * number[1]
            elif at >= 0:
                after = max(number[2], 0)
                fields[4], fields[5] = -1, -1
                if number[3] and number[1] <= _EXACT and after < len(_TEN):
                    # Both are exact, so their quotient is the nearest double: what `float` gives.
                    score[0] = number[0] * (number[1] / _TEN[after])
                else:
                    fields[4], fields[5] = begin, at
        if at < 0:
            return at
        at = _space(text, at, end)
        if at >= end:
            return -2
        if text[at] == 125:
            return at + 1 if seen == 15 else -1
        if text[at] != 44:
            return -1
        at = _space(text, at + 1, end)


@jit(
    "void(uint8[::1], int64, int64[:, ::1], float64[::1], int64[::1], uint8[::1], int64[::1],"
    " int64[::1])"
)
def scan(
    text: Any,
    end: Any,
    fields: Any,
    scores: Any,
    ends: Any,
    data: Any,
    used: Any,
    state: Any,
) -> None:
    """Reads the records of a list of results as far as the text goes.

    Args:
        text: uint8.
        end: of what is there of it.
        fields: int64 [capacity, FIELDS], filled.
        scores: float64 [capacity], filled.
        ends: int64 [capacity], filled: where the codes of each mask end in `data`.
        data: uint8, filled: the masks' codes.
        used: int64 [2], bytes of `data` in use, by whole records in the first.
        state: int64 [4]: records read here, where to go on in the text, MORE, CLOSED or UNKNOWN,
            whether a record went before (in and out).
    """
    number = np.zeros(4, np.int64)
    n, at = 0, state[1]
    state[0], state[2] = 0, MORE
    while True:
        place = _space(text, at, end)
        if place >= end:
            break
        if text[place] == 93:
            state[2] = CLOSED
            at = place + 1
            break
        if state[3]:
            if text[place] != 44:
                state[2] = UNKNOWN
                break
            place = _space(text, place + 1, end)
            if place >= end:
                break
        if text[place] != 123 or n == len(scores):
            state[2] = UNKNOWN
            break
        stop = _record(text, place + 1, end, number, fields[n], scores[n : n + 1], data, used)
        if stop < 0:
            state[2] = UNKNOWN if stop == -1 else MORE
            break
        used[0] = used[1]
        ends[n] = used[0]
        n += 1
        at = stop
        state[3] = 1
    state[0], state[1] = n, at
