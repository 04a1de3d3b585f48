"""Columns of JSON rows, checked on the way: the parts of every annotation and result reader."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_metrics.masks.rle import Int

Float = NDArray[np.float64]


def place_of(table: Int, ids: Int) -> Int:
    """Returns the place of each id in the rising `table`, -1 for one that is not there: int64 [n]."""
    at = np.searchsorted(table, ids)
    at[at == len(table)] = 0
    found = table[at] == ids if len(table) else np.zeros(len(ids), bool)
    return np.where(found, at, -1)


def integers(rows: Sequence[Any], key: str, name: str, what: str, first: int = 0) -> Int:
    """Returns column `key` of `rows` as int64; UserError for the first row that has no integer there."""
    try:
        column = [row[key] for row in rows]
        array = np.array(column) if column else np.zeros(0, np.int64)
        if array.dtype.kind == "i" and not any(value is True or value is False for value in column):
            return array.astype(np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    for i, row in enumerate(rows):
        value = row.get(key) if isinstance(row, Mapping) else None
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
            raise UserError(f"{name}: {what} {first + i}: `{key}` must be an integer, is {_short(row, key)}")
    return np.array([int(row[key]) for row in rows], np.int64)


def numbers(rows: Sequence[Any], key: str, name: str, what: str, first: int = 0) -> Float:
    """Returns column `key` of `rows` as float64; UserError for the first that is no finite number."""
    try:
        column = [row[key] for row in rows]
        array = np.array(column) if column else np.zeros(0)
        if array.dtype.kind in "if" and np.isfinite(array).all():
            return array.astype(np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    for i, row in enumerate(rows):
        value = row.get(key) if isinstance(row, Mapping) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise UserError(f"{name}: {what} {first + i}: `{key}` must be a finite number, is {_short(row, key)}")
    return np.array([float(row[key]) for row in rows], np.float64)


def _short(row: Any, key: str) -> str:
    if not isinstance(row, Mapping):
        return f"missing (the {type(row).__name__} is no object)"
    return f"{row[key]!r:.60}" if key in row else "missing"


def unique(values: Int, name: str, what: str) -> None:
    """Checks that ids are unique; UserError with the first that is not."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) != len(values):
        raise UserError(f"{name}: {what} {distinct[counts > 1][0]} is there more than once; ids must be unique")


def zero_id_warning(ids: Int) -> list[str]:
    """Says so if an annotation has the id 0, which COCOeval, lvis-api and YTVOSeval use as a sign for "no match"."""
    said = "annotation id 0: the official program takes a match with it for none; here it counts"
    return [said] if (ids == 0).any() else []


def rows_of(content: Mapping[str, Any], key: str, name: str) -> list[Any]:
    """Returns the list `key` of an annotation file; UserError when it is none."""
    rows = content.get(key)
    if not isinstance(rows, list):
        raise UserError(f"{name}: `{key}` must be a list; is this an annotation file in COCO format?")
    return rows


def flag(row: Mapping[str, Any], key: str, name: str) -> bool:
    """Returns a 0/1 value of an annotation, False when absent; UserError for anything else."""
    value = row.get(key, 0)
    if value not in (0, 1):
        raise UserError(f"{name}: annotation id {row.get('id')}: `{key}` must be 0 or 1, is {value!r}")
    return bool(value)


def finite(value: Any, where: str) -> float:
    """Returns a number of a file as float; UserError for anything that is no finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(value):
                return float(value)
        except OverflowError:
            pass
    raise UserError(f"{where} must be a finite number, is {value!r:.60}")


def id_list(value: Any, where: str) -> list[int]:
    """Returns a list of ids of a file; UserError for anything else."""
    if isinstance(value, list) and all(type(v) is int and abs(v) < 2**63 for v in value):
        return value
    raise UserError(f"{where} must be a list of integers, is {value!r:.60}")
