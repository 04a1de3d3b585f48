"""Reading a JSON list block by block: result files of millions of detections do not fit in memory as Python objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from hqsam_base.errors import UserError
from hqsam_base.texts import open_text

_BLOCK = 1 << 24
# One element longer than this many blocks is no detection; the file is broken.
_PATIENCE = 8
_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        UserError: the file cannot be read or is no JSON.
    """
    try:
        with path.open("rb") as file:
            return json.load(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give an existing JSON file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None


def iter_list(path: Path, *, block: int = _BLOCK) -> Iterator[list[Any]]:
    """Yields the elements of a JSON file whose top level is a list, some at a time.

    Args:
        path: the file.
        block: characters read at once.

    Yields:
        Lists of elements, in the order of the file; together they are the whole list.

    Raises:
        UserError: the file cannot be read, is no JSON, or no list.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size <= block:
        content = read_json(path)
        if not isinstance(content, list):
            raise UserError(f"{path}: must be a JSON list of results, is a {type(content).__name__}")
        yield content
        return
    try:
        with open_text(path) as file:
            yield from _iter_blocks(file, path, block)
    except UnicodeError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None


def _iter_blocks(file: TextIO, path: Path, block: int) -> Iterator[list[Any]]:
    """Reads elements from a buffer; an element that the buffer cuts off is read again with more behind it."""
    buffer = file.read(block)
    at = _skip(buffer, 0)
    if buffer[at : at + 1] != "[":
        raise UserError(f"{path}: must be a JSON list of results")
    at += 1
    while True:
        elements, at, ended = _read_elements(buffer, at)
        if elements:
            yield elements
        if ended:
            break
        more = file.read(block)
        if not more or len(buffer) - at > _PATIENCE * block:
            raise UserError(f"{path}: is not valid JSON around {buffer[at : at + 40]!r}")
        buffer, at = buffer[at:] + more, 0
    if buffer[at:].strip() or file.read(block).strip():
        raise UserError(f"{path}: is not valid JSON: something follows the list")


def _read_elements(buffer: str, at: int) -> tuple[list[Any], int, bool]:
    """Reads complete elements from `at` on.

    Returns:
        The elements, where to go on, and whether the list has ended there.
    """
    out: list[Any] = []
    while True:
        begin = _skip(buffer, at)
        if not out and buffer[begin : begin + 1] == "]":
            return out, begin + 1, True
        try:
            element, end = _decode(buffer, begin)
        except (ValueError, RecursionError):
            return out, at, False
        end = _skip(buffer, end)
        # Without a separator behind it the element may go on in the next block.
        separator = buffer[end : end + 1]
        if separator not in (",", "]") or not separator:
            return out, at, False
        out.append(element)
        at = end + 1
        if separator == "]":
            return out, at, True


def _skip(buffer: str, at: int) -> int:
    space = _SPACE.match(buffer, at)
    return at if space is None else space.end()
