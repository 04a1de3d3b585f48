"""Large JSON files in bounded memory: records are decoded one by one, or kept as text.

LVIS's annotations are 0.4 GB of JSON for val and 1.2 GB for train, the published boxes for it 1.3
GB. Decoded at once they take six to ten times that.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from hqsam_base.errors import UserError
from hqsam_base.texts import open_text, packing

_CHUNK = 1 << 20
_WHOLE = 1 << 24
_TOGETHER = 1 << 14
_MAX_VALUE = 256 << 20
_SPACE = " \t\r\n"
_A_LIST = "give a JSON list of results: of a whole COCO file, the list `annotations`"
_LISTS = ("annotations", "predictions", "results", "detections")


def canonical(value: Any) -> bytes:
    """Compact JSON with sorted keys; ValueError for NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


@dataclass(frozen=True)
class PackedRecords:
    """A list of JSON objects kept as canonical text: a sixth of the memory of the objects.

    Attributes:
        texts: one per record, in file order.
    """

    texts: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (json.loads(text) for text in self.texts)

    def __getitem__(self, number: int) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.texts[number])
        return record


def write_packed(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object, whose values may be `PackedRecords`, as canonical JSON and a line feed; not atomically."""
    with path.open("xb") as file:
        file.write(b"{")
        for number, key in enumerate(sorted(value)):
            file.write(
                (b"," if number else b"") + json.dumps(key, ensure_ascii=False).encode() + b":"
            )
            if isinstance(value[key], PackedRecords):
                file.write(b"[")
                for place, text in enumerate(value[key].texts):
                    file.write((b"," if place else b"") + text)
                file.write(b"]")
            else:
                file.write(canonical(value[key]))
        file.write(b"}\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, decoded at once.

    Raises:
        UserError: the file cannot be read or is not JSON.
    """
    try:
        with path.open("rb") as file:
            return json.load(file)
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", file=path, cure="give an existing JSON file"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"is not valid JSON ({error})", file=path, cure=_cure(path, error)
        ) from None


def _cure(path: Path, error: Exception) -> str:
    if kind := packing(path):
        return f"it is packed ({kind}): unpack it and give the file inside"
    if getattr(error, "msg", None) == "Extra data":
        return "if each line is a value of its own (JSON lines), write them as one list"
    return "write or fetch the file again"


def iterate_results(path: Path, *, whole: int = _WHOLE) -> Iterator[list[Any]]:
    """The elements of a JSON file whose top level is a list, some at a time, in the order of the file.

    Args:
        path: the file.
        whole: bytes up to which a file is decoded at once, which is faster.

    Raises:
        UserError: the file cannot be read, is not JSON, or no list.
    """
    if not path.is_file():
        raise UserError(
            "is a folder" if path.is_dir() else "no such file",
            file=path,
            cure="give an existing JSON file",
        )
    if path.stat().st_size <= whole:
        yield as_results(read_json(path), path)
        return
    records = iterate_list(path, problem="is not valid JSON", cure=_A_LIST)
    while some := list(itertools.islice(records, _TOGETHER)):
        yield some


def as_results(content: Any, name: Path | str) -> list[Any]:
    """The content of a file of results.

    Raises:
        UserError: it is not a list; where it holds one, the cure names it.
    """
    if isinstance(content, list):
        return content
    given = content if isinstance(content, dict) else {}
    inside = next((key for key in _LISTS if isinstance(given.get(key), list)), None)
    cure = (
        _A_LIST
        if inside is None
        else f"give a JSON list of results: of this file, the list `{inside}`"
    )
    raise UserError(
        f"must be a JSON list of results, is a {type(content).__name__}", file=name, cure=cure
    )


def iterate_list(path: Path, *, problem: str, cure: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a file that is a JSON list, decoded one at a time.

    Args:
        path: the file.
        problem: what the error says first.
        cure: what it says last.

    Raises:
        UserError: the file is missing, its top level is not a list of objects, or it ends early.
    """
    with _scanner(path, problem, cure) as scanner:
        yield from scanner.whole(scanner.records)


def iterate_members(
    path: Path, lists: tuple[str, ...], *, problem: str, cure: str
) -> Iterator[tuple[str, Any]]:
    """Yield the members (key, value) of a JSON object; those in `lists` as one (key, record) per record.

    A list of `lists` is announced by (key, None) before its first record; `null` in its place counts
    as a member that is not there.

    Raises:
        UserError: as `iterate_list`, or a member that `lists` names is not a list.
    """
    with _scanner(path, problem, cure) as scanner:
        yield from scanner.whole(lambda: scanner.members(lists))


@contextmanager
def _scanner(path: Path, problem: str, cure: str) -> Iterator[_Scanner]:
    """Opens the file; what goes wrong while reading it becomes one message."""

    def wrong(detail: str) -> UserError:
        return UserError(f"{problem}: {detail}", file=path, cure=cure)

    try:
        with open_text(path) as file:
            yield _Scanner(file, wrong)
    except FileNotFoundError:
        raise UserError(
            "the file does not exist", file=path, cure="fetch the archive again"
        ) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", file=path, cure=cure) from None
    except UnicodeError as error:
        raise UserError(
            f"not a text file: {error}",
            file=path,
            cure=_cure(path, error) if packing(path) else cure,
        ) from error


class _Scanner:
    """Walks JSON in a sliding window over the file."""

    def __init__(self, file: TextIO, wrong: Callable[[str], UserError]) -> None:
        self._file, self._wrong = file, wrong
        self._text = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def whole(self, content: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """What `content` yields, then a check that nothing follows."""
        yield from content()
        if self._next():
            raise self._wrong("something follows the end")

    def records(self) -> Iterator[Mapping[str, Any]]:
        """The objects of the list that begins here."""
        if self._next() != "[":
            raise self._wrong("the top level is not a list")
        for number in self._commas("]", "the list is not closed"):
            record = self._value(f"record {number}")
            if not isinstance(record, dict):
                raise self._wrong(f"record {number} is not an object")
            yield record

    def members(self, lists: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """The members of the object that begins here."""
        if self._next() != "{":
            raise self._wrong("the top level is not an object")
        for _ in self._commas("}", "the object is not closed"):
            name = self._value("a key")
            if not isinstance(name, str) or self._next() != ":":
                raise self._wrong("a key is damaged or cut off")
            self._at += 1
            if name in lists and self._next() == "n" and self._value(name) is None:
                continue
            if name in lists and self._next() != "[":
                raise self._wrong(f"{name} is not a list")
            if name in lists:
                yield name, None
                yield from ((name, record) for record in self.records())
            else:
                yield name, self._value(name)

    def _commas(self, end: str, problem: str) -> Iterator[int]:
        """Step over brackets and commas of a list; the caller reads the elements in between."""
        self._at += 1
        number = 0
        if self._next() != end:
            yield number
            while self._next() == ",":
                self._at += 1
                number += 1
                self._next()
                yield number
        if self._next() != end:
            raise self._wrong(problem)
        self._at += 1

    def _value(self, what: str) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except RecursionError as error:
                raise self._wrong(f"{what} is nested too deeply") from error
            except ValueError as error:
                if len(self._text) - self._at > _MAX_VALUE or not self._more():
                    raise self._wrong(f"{what} is damaged or cut off: {error}") from error
                continue
            # A number at the window's end may go on behind it, and "0" is read off the front of
            # "0." or "0e".
            whole = end < len(self._text) and self._text[end] not in ".eE"
            left = len(self._text) - end
            if whole or not self._more():
                self._at = end if whole else len(self._text) - left
                return value

    def _next(self) -> str:
        """The next character that is no space, without taking it; empty at the file's end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on: as much again as waits already, so that a long value is tried a few times only."""
        chunk = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)
