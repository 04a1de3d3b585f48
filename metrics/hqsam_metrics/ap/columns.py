"""Columns of JSON rows, checked on the way: the parts of every annotation and result reader."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.ids import flag as plain_flag
from hqsam_base.ids import plain_id, whole_number
from hqsam_base.runs import Int

Float = NDArray[np.float64]


def place_of(table: Int, ids: Int) -> Int:
    """Returns the place of each id in the rising `table`, -1 for one that is not there: int64 [n]."""
    at = np.searchsorted(table, ids)
    at[at == len(table)] = 0
    found = table[at] == ids if len(table) else np.zeros(len(ids), bool)
    return np.where(found, at, -1)


Ids = Int | list[int | str]
"""Ids of records: int64 [n], or where some are names, as `plain_id` gives them."""


@dataclass(frozen=True)
class IdTable:
    """The ids of a list of records, in the order that decides between equal scores.

    Attributes:
        numbers: int64 [n], rising: the ids, or 0, 1, ... where some are names.
        names: the ids in that order where some are text, else None.
    """

    numbers: Int
    names: tuple[int | str, ...] | None = None

    def __len__(self) -> int:
        """Returns n."""
        return len(self.numbers)

    @cached_property
    def _place(self) -> dict[int | str, int]:
        return {one: at for at, one in enumerate(self.names or self.numbers.tolist())}

    def place(self, ids: Ids) -> Int:
        """Returns the place of each id, -1 for one that is not there: int64 [m]."""
        if self.names is None and isinstance(ids, np.ndarray):
            return place_of(self.numbers, ids)
        some = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return np.array([self._place.get(one, -1) for one in some], np.int64)

    @classmethod
    def of(cls, rows: Sequence[Any], name: str, what: str) -> tuple[IdTable, Int]:
        """Reads the key `id` of `rows`, which must be unique.

        Returns:
            The table, and the row of each of its ids, int64 [n].

        Raises:
            UserError: an id that is missing, neither a number nor text, or there more than once.
        """
        ids = read_ids(rows, "id", name, what)
        unique(ids, name, f"{what} id")
        if isinstance(ids, np.ndarray):
            order = np.argsort(ids)
            return cls(ids[order]), order
        # COCOeval sorts the ids as they are: texts of digits as texts.
        spelled = [str(row["id"]) for row in rows]
        order = np.array(sorted(range(len(ids)), key=spelled.__getitem__), np.int64)
        return cls(np.arange(len(ids), dtype=np.int64), tuple(ids[i] for i in order)), order


def _column(rows: Sequence[Any], key: str) -> Int | None:
    """Returns column `key` as int64 where every row has a plain integer there."""
    try:
        column = [row[key] for row in rows]
        array = np.array(column) if column else np.zeros(0, np.int64)
        if (
            array.dtype.kind == "i"
            and array.ndim == 1
            and not any(value is True or value is False for value in column)
        ):
            return array.astype(np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    return None


def read_ids(rows: Sequence[Any], key: str, name: str, what: str, first: int = 0) -> Ids:
    """Returns the ids of column `key`; UserError for the first row that has none."""
    plain = _column(rows, key)
    if plain is not None:
        return plain
    out: list[int | str] = []
    for i, row in enumerate(rows):
        try:
            out.append(plain_id(row[key]))
        except (KeyError, TypeError, ValueError):
            where = f"{name}: {what} {first + i}"
            raise UserError(
                f"{where}: `{key}` must be an integer or a text, is {_short(row, key)}"
            ) from None
    texts = any(isinstance(row[key], str) for row in rows)
    return out if texts else np.array(out, np.int64)


def integers(rows: Sequence[Any], key: str, name: str, what: str, first: int = 0) -> Int:
    """Returns column `key` of `rows` as int64; UserError for the first row that has no whole number there."""
    plain = _column(rows, key)
    if plain is not None:
        return plain
    out = np.empty(len(rows), np.int64)
    for i, row in enumerate(rows):
        try:
            out[i] = whole_number(row[key])
        except (KeyError, TypeError, ValueError):
            where = f"{name}: {what} {first + i}"
            raise UserError(f"{where}: `{key}` must be an integer, is {_short(row, key)}") from None
    return out


def is_number(value: Any) -> bool:
    """Tell whether a value of a file is a number that float64 can hold; a whole number of JSON may be larger."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max


def numbers(rows: Sequence[Any], key: str, name: str, what: str, first: int = 0) -> Float:
    """Returns column `key` of `rows` as float64; UserError for the first that is no finite number."""
    try:
        column = [row[key] for row in rows]
        array = np.array(column) if column else np.zeros(0)
        if array.dtype.kind in "if" and array.ndim == 1 and np.isfinite(array).all():
            return array.astype(np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    for i, row in enumerate(rows):
        value = row.get(key) if isinstance(row, Mapping) else None
        if not is_number(value):
            raise UserError(
                f"{name}: {what} {first + i}: `{key}` must be a finite number, is "
                f"{_short(row, key)}"
            )
    return np.array([float(row[key]) for row in rows], np.float64)


def _short(row: Any, key: str) -> str:
    if not isinstance(row, Mapping):
        return f"missing (the {type(row).__name__} is no object)"
    return f"{row[key]!r:.60}" if key in row else "missing"


def unique(ids: Ids, name: str, what: str) -> None:
    """Checks that ids are unique; UserError with the first that is not."""
    values = ids.tolist() if isinstance(ids, np.ndarray) else ids
    if len(set(values)) != len(values):
        seen: set[int | str] = set()
        double = next(one for one in values if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise UserError(f"{name}: {what} {double} is there more than once; ids must be unique")


def known_places(
    rows: Sequence[Any], key: str, table: IdTable, name: str, truth: str, first: int = 0
) -> Int:
    """Returns the place of each result's image or video in the annotation file `truth`: int64 [n].

    Raises:
        UserError: the file does not have one of them.
    """
    ids = read_ids(rows, key, name, "result", first)
    place = table.place(ids)
    unknown = np.flatnonzero(place < 0)
    if len(unknown):
        at = int(unknown[0])
        cure = "score it against the annotation file it was made for"
        if isinstance(ids[at], str):
            cure += ", by its ids, not by the names of pictures"
        raise UserError(
            f"{name}: result {first + at}: {key} {ids[at]} is not in {truth} ({len(unknown)} such "
            f"results); {cure}"
        )
    return place


def zero_id_warning(ids: Ids) -> list[str]:
    """Says so if an annotation has the id 0, which COCOeval, lvis-api and YTVOSeval use as a sign for "no match"."""
    said = "annotation id 0: the official program takes a match with it for none; here it counts"
    return [said] if 0 in ids else []


def rows_of(content: Mapping[str, Any], key: str, name: str) -> list[Any]:
    """Returns the list `key` of an annotation file; UserError when it is none."""
    rows = content.get(key)
    if not isinstance(rows, list):
        kind = "YouTube-VIS" if key == "videos" else "COCO"
        raise UserError(
            f"{name}: `{key}` must be a list; is this an annotation file in {kind} format?"
        )
    return rows


def flag(row: Mapping[str, Any], key: str, name: str) -> bool:
    """Returns a 0/1 value of an annotation, False when absent or null; UserError for anything else."""
    try:
        return plain_flag(row.get(key))
    except ValueError as error:
        raise UserError(f"{name}: annotation id {row.get('id')}: `{key}` {error}") from None


def finite(value: Any, where: str) -> float:
    """Returns a number of a file as float; UserError for anything that is no finite number."""
    if is_number(value):
        return float(value)
    raise UserError(f"{where} must be a finite number, is {value!r:.60}")


def id_list(value: Any, where: str) -> list[int | str]:
    """Returns a list of ids of a file; UserError for anything else."""
    try:
        return [plain_id(one) for one in value] if isinstance(value, list) else [plain_id(None)]
    except ValueError:
        raise UserError(f"{where} must be a list of ids, is {value!r:.60}") from None
