"""The headers of a tar that others packed, read with limits.

`tarfile` reads a header as large as it says it is, takes quadratic time over the records of one,
follows a negative length backwards, and ends without a word at a damaged header in the middle. A
compressed tar of a few megabytes can hold all of these.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from hqsam_base.errors import UserError

MAX_RATIO = 1000
"""How many times its own size an archive may expand to; gzip's own limit is 1032."""
RATIO_APPLIES_ABOVE = 64 << 20
MAX_HEADER = 32 << 10
"""Bytes of an extended header, which holds a long name and notes of the packing program."""
MAX_MEMBERS = 2_000_000
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Header(tarfile.TarInfo):
    """A header that asks for no more than is sensible."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        """See `tarfile.TarInfo`.

        Raises:
            ValueError: A negative length, or an extended header that is too large.
        """
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise ValueError("a header with a negative length")
        if header.type in _EXTENDED and header.size > MAX_HEADER:
            raise ValueError(
                f"an extended header of {header.size} bytes, the limit is {MAX_HEADER}"
            )
        return header


def most_bytes(path: Path) -> int:
    """How much the members of an archive may have together, by the size of its file."""
    return max(RATIO_APPLIES_ABOVE, MAX_RATIO * path.stat().st_size)


def opened(path: Path) -> tarfile.TarFile:
    """The tar at `path`, compressed or not."""
    return tarfile.open(path, tarinfo=Header)


def members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar that `opened` has opened; each is looked at before the next one is searched behind it.

    Raises:
        UserError: There are too many, they expand implausibly, or the tar does not end as it should.
    """
    most, before = most_bytes(path), -1
    for number, member in enumerate(archive):
        end = member.offset_data + member.size
        if member.size < 0 or archive.offset <= before:
            raise ValueError(f"{member.name!r} has a length that leads backwards")
        if end > most or archive.offset > most:
            raise too_large(path, f"member {member.name!r} ends", end, most)
        if number >= MAX_MEMBERS:
            raise too_large(path, "its members number", number + 1, MAX_MEMBERS)
        before = archive.offset
        yield member
    # `tarfile` stops at a damaged header as at the end: at the end a block of zeros must stand
    stream = archive.fileobj
    assert stream is not None  # the archive is open
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(
            f"a damaged header at byte {archive.offset}, or the archive is cut off there"
        )


def too_large(path: Path, what: str, found: int, most: int) -> UserError:
    """The error for an archive whose contents are implausibly large."""
    cure = "do not use this archive; fetch it from a mirror that you trust"
    return UserError(
        f"the archive is implausibly large: {what} {found:,}, the limit is {most:,}",
        file=path,
        cure=cure,
    )
