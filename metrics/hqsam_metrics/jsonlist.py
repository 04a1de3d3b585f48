"""Reading a JSON list block by block: result files of millions of detections do not fit in memory as Python objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hqsam_metrics.errors import UserError

_BLOCK = 1 << 24
# One element longer than this many blocks is no detection; the file is broken.
_PATIENCE = 8


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

    A block ends at a ``}`` that closes an element. Whether one does is not guessed: only a piece that is itself a valid
    list of complete elements is accepted, otherwise the next block is added to it.

    Args:
        path: the file.
        block: bytes read at once.

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
    yield from _iter_blocks(path, block)


def _iter_blocks(path: Path, block: int) -> Iterator[list[Any]]:
    with path.open("rb") as file:
        rest = file.read(block).lstrip()
        if not rest.startswith(b"["):
            raise UserError(f"{path}: must be a JSON list of results")
        rest = rest[1:]
        while True:
            more = file.read(block)
            if not more:
                break
            cut = rest.rfind(b"}") + 1
            elements = _parse(b"[" + rest[:cut] + b"]") if cut else None
            follows = rest[cut:].lstrip()
            if elements is None or not follows.startswith(b","):
                if len(rest) > _PATIENCE * block:
                    raise UserError(f"{path}: is not valid JSON somewhere in the {len(rest)} bytes before {file.tell()}")
                rest += more
                continue
            yield elements
            rest = follows[1:] + more
        last = _parse(b"[" + rest)
        if last is None:
            raise UserError(f"{path}: is not valid JSON (the last {len(rest)} bytes do not end the list)")
        yield last


def _parse(piece: bytes) -> list[Any] | None:
    try:
        parsed: list[Any] = json.loads(piece)
    except (ValueError, RecursionError):
        return None
    return parsed
