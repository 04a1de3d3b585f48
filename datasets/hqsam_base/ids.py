"""Ids of annotation and result files: numbers, or names."""

from __future__ import annotations

import re
from typing import Any

_DIGITS = re.compile(r"-?[0-9]+", re.ASCII)
_LIMIT = 1 << 63


def plain_id(value: Any) -> int | str:
    """Returns an id in the one form in which ids are compared.

    A whole number written as text or as a float is that number (139, 139.0, "139" and
    "000000000139" are one id: tools disagree about the spelling); any other text is a name. Text of
    digits beyond 63 bits is a name, too.

    Args:
        value: as found in the file.

    Raises:
        ValueError: neither a whole number nor text.
    """
    if isinstance(value, str) and value:
        number = int(value) if _DIGITS.fullmatch(value) and len(value) < 20 else _LIMIT
        return number if abs(number) < _LIMIT else value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LIMIT:
        return value
    raise ValueError(f"an id must be a whole number or text, is {value!r:.60}")


def in_order(one: int | str) -> tuple[bool, int, str]:
    """Returns what ids are sorted by: numbers first, then names."""
    return (False, one, "") if isinstance(one, int) else (True, 0, one)


def whole_number(value: Any) -> int:
    """Returns a whole number that may be written as text or as a float; ValueError for anything else."""
    number = plain_id(value)
    if isinstance(number, str):
        raise ValueError(f"must be a whole number, is {value!r:.60}")
    return number


def flag(value: Any) -> bool:
    """Returns a yes/no value of an annotation: 0, 1, a bool, or None for no; ValueError for anything else."""
    if value is None:
        return False
    if isinstance(value, int | float | str) and value in (0, 1, "0", "1"):
        return value not in (0, "0")
    raise ValueError(f"must be 0 or 1, is {value!r:.60}")


def numbered(ids: list[int | str]) -> dict[int | str, int]:
    """Returns a number for each id: the ids themselves, or 1, 2, ... in the order of the texts if any is a name.

    Args:
        ids: as `plain_id` gives them, each once.
    """
    if all(isinstance(one, int) for one in ids):
        return {one: int(one) for one in ids}
    return {one: number for number, one in enumerate(sorted(ids, key=str), start=1)}
