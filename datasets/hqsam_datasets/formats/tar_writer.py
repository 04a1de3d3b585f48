"""Writing USTAR archives and shards, byte for byte alike: see `hqsam_datasets.formats.tar` for what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from hqsam_datasets.formats.tar import BLOCK, Member, padded

_RECORD = 20 * BLOCK
_MAX_SIZE = 8**11 - 1
_BUFFER = 1 << 20  # bytes written at once: a sample is a dozen small pieces
_SMALL = (
    1 << 16
)  # bytes: a member up to this size is copied together with its header, to be written and hashed at once
_ZEROS = bytes(BLOCK)
# What every header has in common: the fields between name and size, and those between checksum and
# prefix.
_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, uid, gid
_MTIME = b"00000000000\0"
_KIND = (b"0" + bytes(100) + b"ustar\0" + b"00").ljust(345 - 156, b"\0")  # a regular file, no link
_COMMON_SUM = sum(_OWNER + _MTIME + _KIND) + 8 * ord(
    " "
)  # the checksum counts as blanks in its own sum


class Hasher(Protocol):
    """What `hashlib` and `xxhash` objects have in common."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The digest so far."""


class TarWriter:
    """Append members to one archive in the order given; close() writes the end and pads to whole records.

    `offset` is where the next header will stand.

    Args:
        file: binary file open for writing, positioned at `offset`. The caller closes (and renames)
            it.
        offset: end of the members that are there, if an archive is continued; `digest` is then of
            the rest only.
        hasher: makes the digest.
    """

    def __init__(
        self, file: BinaryIO, *, offset: int = 0, hasher: Callable[[], Hasher] = hashlib.sha256
    ) -> None:
        self._file = file
        self.offset = offset
        self._names: set[str] = set()
        self._hasher = hasher()
        self._closed = False

    @property
    def digest(self) -> str:
        """Hexadecimal digest of the bytes written so far."""
        return self._hasher.hexdigest()

    def add(self, name: str, data: bytes | memoryview) -> Member:
        """Append one file; a name can be used once.

        Raises:
            ValueError: for a duplicate name or one that USTAR cannot hold.
        """
        if name in self._names:
            raise ValueError(f"{name}: already in the archive")
        self._names.add(name)
        start = self.offset
        pieces = (header(name, len(data)), data, _ZEROS[: padded(len(data)) - len(data)])
        for piece in (b"".join(pieces),) if len(data) <= _SMALL else pieces:
            self._write(piece)
        return Member(name, start, start + BLOCK, len(data))

    def append(self, members: bytes) -> None:
        """Append members as they lie in another archive of this module, headers and padding included."""
        self._write(members)

    def close(self) -> None:
        """Write the two zero blocks that end an archive and pad it to a multiple of 10,240 bytes."""
        if not self._closed:
            self._closed = True
            end = self.offset + 2 * BLOCK
            self._write(bytes(end + (-end) % _RECORD - self.offset))

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hasher.update(data)
        self.offset += len(data)


@dataclass(slots=True)
class ShardInfo:
    """What was written to one shard: file name, keys and offsets in order, size, digest (SHA-256 unless said)."""

    name: str
    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    bytes: int = 0
    digest: str = ""

    def as_json(self) -> dict[str, object]:
        """The record that `index.json` holds for a shard."""
        return {
            "name": self.name,
            "n": len(self.keys),
            "bytes": self.bytes,
            "sha256": self.digest,
            "keys": self.keys,
            "offsets": self.offsets,
        }


class ShardWriter:
    """Write samples (a key and its files) to `<prefix>-00000.tar`, `-00001.tar`, ... in a folder.

    A new shard is begun after `samples_per_shard` samples or when a sample would make it larger
    than
    `max_bytes`. No samples, no shard: an empty archive is never written. Meant for a temporary
    folder (`atomic.atomic_folder`). `hasher` makes the digests of the shards.
    """

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str,
        samples_per_shard: int,
        max_bytes: int | None = None,
        first_shard: int = 0,
        hasher: Callable[[], Hasher] = hashlib.sha256,
    ) -> None:
        if samples_per_shard < 1:
            raise ValueError("samples_per_shard must be at least 1")
        self.folder = folder
        self.shards: list[ShardInfo] = []
        self._prefix = prefix
        self._limit = samples_per_shard
        self._max_bytes = max_bytes
        self._first = first_shard
        self._hasher = hasher
        self._file: BinaryIO | None = None
        self._tar: TarWriter | None = None

    def add(self, key: str, files: Mapping[str, bytes]) -> str:
        """Append one sample's files, `<key>.<extension>`, sorted by extension; returns the shard's name."""
        tar, name = self._next(key, sum(BLOCK + padded(len(data)) for data in files.values()))
        for extension in sorted(files):
            tar.add(f"{key}.{extension}", files[extension])
        return name

    def append(self, key: str, members: bytes) -> str:
        """Append a sample as it lies in another archive (`TarReader.read_span`); returns the shard's name."""
        tar, name = self._next(key, len(members))
        tar.append(members)
        return name

    def close(self) -> list[ShardInfo]:
        """End the last shard and return what was written."""
        self._finish()
        return self.shards

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def _next(self, key: str, size: int) -> tuple[TarWriter, str]:
        """The archive in which a sample of `size` bytes begins now, noted in its index, and the archive's name."""
        if self._tar is not None:
            too_large = self._max_bytes is not None and self._tar.offset + size > self._max_bytes
            if too_large or len(self.shards[-1].keys) >= self._limit:
                self._finish()
        if self._tar is None:
            name = f"{self._prefix}-{self._first + len(self.shards):05d}.tar"
            self.shards.append(ShardInfo(name))
            self._file = (self.folder / name).open("xb", buffering=_BUFFER)
            self._tar = TarWriter(self._file, hasher=self._hasher)
        info = self.shards[-1]
        info.keys.append(key)
        info.offsets.append(self._tar.offset)
        return self._tar, info.name

    def _finish(self) -> None:
        if self._tar is not None and self._file is not None:
            self._tar.close()
            self.shards[-1].bytes = self._tar.offset
            self.shards[-1].digest = self._tar.digest
            self._file.close()
        self._tar = None
        self._file = None


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> str:
    """Write members, sorted by name, to `path` (not atomically); returns the archive's SHA-256."""
    with path.open("xb") as file:
        writer = TarWriter(file)
        for name, data in sorted(members):
            writer.add(name, data)
        writer.close()
        return writer.digest


def header(name: str, size: int) -> bytes:
    """The 512-byte USTAR header of a regular file.

    Raises:
        ValueError: if the name does not fit USTAR's 155 + 100 bytes or the size its 8 GiB.
    """
    prefix, base = _split_name(name)
    if not 0 <= size <= _MAX_SIZE:
        raise ValueError(f"{name}: {size} bytes do not fit a USTAR header (8 GiB)")
    digits = b"%011o\0" % size
    checksum = b"%06o\0 " % (_COMMON_SUM + sum(base) + sum(prefix) + sum(digits))
    fields = (
        base.ljust(100, b"\0"),
        _OWNER,
        digits,
        _MTIME,
        checksum,
        _KIND,
        prefix.ljust(BLOCK - 345, b"\0"),
    )
    return b"".join(fields)


def _split_name(name: str) -> tuple[bytes, bytes]:
    raw = name.encode()
    if not raw or name.startswith("/") or b"\0" in raw:
        raise ValueError(f"{name!r} is not a member name")
    if len(raw) <= 100:
        return b"", raw
    for cut in range(min(len(raw) - 1, 155), 0, -1):
        if raw[cut : cut + 1] == b"/" and len(raw) - cut - 1 <= 100:
            return raw[:cut], raw[cut + 1 :]
    raise ValueError(f"{name!r} is too long for a USTAR header")
