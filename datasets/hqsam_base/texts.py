"""Opening text files as other people's programs write them."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TextIO

from hqsam_base.errors import UserError
from hqsam_base.foreign_names import NameRefusedError, PlainName

# The longer marks first: that of UTF-16 begins like that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def open_text(path: Path, *, errors: str = "strict") -> TextIO:
    """Opens a text file of any size for reading: UTF-8, or what its byte order mark says.

    Tools on Windows write such marks (PowerShell's `>` UTF-16, many editors UTF-8 with a mark).

    Args:
        path: the file.
        errors: what to do with bytes that are not text, as for `open`.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(4)
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
    return path.open(encoding=encoding, errors=errors)


def packing(path: Path) -> str | None:
    """Returns by which program a file is packed, as its first bytes say; None: by none that is known."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((name for mark, name in _PACKED.items() if head.startswith(mark)), None)


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a list, without the spaces around them and without empty ones.

    Names keep the spaces inside; bytes that are not text become the replacement character.
    """
    with open_text(path, errors="replace") as file:
        return [line.strip() for line in file if line.strip()]


def read_names(path: Path) -> list[str]:
    """Returns the lines of a list of files or folders, see `read_lines`: none of them leaves the folder that they are in.

    Raises:
        UserError: a line is a path, hidden, too long, or holds control characters.
    """
    names = read_lines(path)
    for line in names:
        try:
            PlainName(line)
        except NameRefusedError as error:
            raise UserError(
                f"the list holds what names no file or folder: {error}",
                file=path,
                key=line,
                cure="check where the list comes from; it names files one a line, without folders",
            ) from error
    return names
