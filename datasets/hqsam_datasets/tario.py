"""Deterministic USTAR archives: written byte for byte alike, read at random without unpacking.

Headers carry mode 0644, uid, gid and mtime 0 and no owner names, so equal content gives equal bytes on any
machine. The archives are plain USTAR: `tar`, Python's `tarfile` and the `webdataset` library read them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from hqsam_datasets.atomic import read_json
from hqsam_datasets.errors import UserError

BLOCK = 512
RECORD = 20 * BLOCK
_MAX_SIZE = 8**11 - 1
_BUFFER = 1 << 20  # bytes written at once: a sample is a dozen small pieces
_SMALL = 1 << 16  # bytes: a member up to this size is copied together with its header, to be written and hashed at once
_ZEROS = bytes(BLOCK)
# What every header has in common: the fields between name and size, and those between checksum and prefix.
_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, uid, gid
_MTIME = b"00000000000\0"
_KIND = (b"0" + bytes(100) + b"ustar\0" + b"00").ljust(345 - 156, b"\0")  # a regular file, no link
_COMMON_SUM = sum(_OWNER + _MTIME + _KIND) + 8 * ord(" ")  # the checksum counts as blanks in its own sum


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: its name, the offset of its header, of its data, and its size in bytes."""

    name: str
    offset: int
    data_offset: int
    size: int

    @property
    def end(self) -> int:
        """Offset of the next header."""
        return self.data_offset + _padded(self.size)


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
    fields = (base.ljust(100, b"\0"), _OWNER, digits, _MTIME, checksum, _KIND, prefix.ljust(BLOCK - 345, b"\0"))
    return b"".join(fields)


class TarWriter:
    """Append members to one archive in the order given; close() writes the end and pads to whole records.

    `offset` is where the next header will stand.

    Args:
        file: binary file open for writing, positioned at `offset`. The caller closes (and renames) it.
        offset: end of the members that are there, if an archive is continued; `sha256` is then of the rest only.
    """

    def __init__(self, file: BinaryIO, *, offset: int = 0) -> None:
        self._file = file
        self.offset = offset
        self._names: set[str] = set()
        self._digest = hashlib.sha256()
        self._closed = False

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes written so far."""
        return self._digest.hexdigest()

    def add(self, name: str, data: bytes | memoryview) -> Member:
        """Append one file; a name can be used once.

        Raises:
            ValueError: for a duplicate name or one that USTAR cannot hold.
        """
        if name in self._names:
            raise ValueError(f"{name}: already in the archive")
        self._names.add(name)
        start = self.offset
        pieces = (header(name, len(data)), data, _ZEROS[: _padded(len(data)) - len(data)])
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
            self._write(bytes(end + (-end) % RECORD - self.offset))

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.offset += len(data)


@dataclass(slots=True)
class ShardInfo:
    """What was written to one shard: file name, keys and offsets in order, size, SHA-256."""

    name: str
    keys: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    bytes: int = 0
    sha256: str = ""

    def as_json(self) -> dict[str, object]:
        """The record that `index.json` holds for a shard."""
        return {
            "name": self.name, "n": len(self.keys), "bytes": self.bytes, "sha256": self.sha256, "keys": self.keys,
            "offsets": self.offsets,
        }  # fmt: skip


class ShardWriter:
    """Write samples (a key and its files) to `<prefix>-00000.tar`, `-00001.tar`, ... in a folder.

    A new shard is begun after `samples_per_shard` samples or when a sample would make it larger than
    `max_bytes`. No samples, no shard: an empty archive is never written. Meant for a temporary folder
    (`atomic.atomic_folder`).
    """

    def __init__(
        self, folder: Path, *, prefix: str, samples_per_shard: int, max_bytes: int | None = None, first_shard: int = 0
    ) -> None:
        if samples_per_shard < 1:
            raise ValueError("samples_per_shard must be at least 1")
        self.folder = folder
        self.shards: list[ShardInfo] = []
        self._prefix = prefix
        self._limit = samples_per_shard
        self._max_bytes = max_bytes
        self._first = first_shard
        self._file: BinaryIO | None = None
        self._tar: TarWriter | None = None

    def add(self, key: str, files: Mapping[str, bytes]) -> str:
        """Append one sample's files, `<key>.<extension>`, sorted by extension; returns the shard's name."""
        tar, name = self._next(key, sum(BLOCK + _padded(len(data)) for data in files.values()))
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
            self._tar = TarWriter(self._file)
        info = self.shards[-1]
        info.keys.append(key)
        info.offsets.append(self._tar.offset)
        return self._tar, info.name

    def _finish(self) -> None:
        if self._tar is not None and self._file is not None:
            self._tar.close()
            self.shards[-1].bytes = self._tar.offset
            self.shards[-1].sha256 = self._tar.sha256
            self._file.close()
        self._tar = None
        self._file = None


class TarReader:
    """Random access to an uncompressed archive: headers are read once, data on demand.

    Reads use `os.pread`: one reader can serve several threads, and a forked worker can go on using it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open(path)
        self._members: dict[str, Member] | None = None

    @property
    def members(self) -> dict[str, Member]:
        """Name to member, in archive order."""
        if self._members is None:
            self._members = {member.name: member for member in walk(self._descriptor, self.path)}
        return self._members

    def spans(self) -> dict[str, tuple[int, int]]:
        """Key to (offset, end) of the bytes that hold its sample, headers and padding included, in archive order."""
        spans: dict[str, tuple[int, int]] = {}
        for member in self.members.values():
            key = split_member(member.name)[0]
            spans[key] = (spans.get(key, (member.offset,))[0], member.end)
        return spans

    def read_span(self, offset: int, end: int) -> bytes:
        """The raw bytes from `offset` to `end`."""
        return _pread(self._descriptor, end - offset, offset, self.path)

    def read(self, name: str) -> bytes:
        """The bytes of one member; KeyError if there is none of that name."""
        return self.read_at(self.members[name])

    def read_at(self, member: Member) -> bytes:
        """The bytes of a member whose place is known."""
        return _pread(self._descriptor, member.size, member.data_offset, self.path)

    def read_sample(self, offset: int, end: int) -> tuple[str, dict[str, bytes]]:
        """The sample between two offsets of a shard index: its key and {extension: bytes}.

        One read: with several, each letting go of the interpreter's lock, the loader's threads wait for each other.
        """
        span = self.read_span(offset, end)
        key, at = "", 0
        files: dict[str, bytes] = {}
        while (block := span[at : at + BLOCK]) and block != _ZEROS:
            member = _parse_header(block, at, self.path)
            member_key, extension = split_member(member.name)
            if member.end > len(span) or (files and member_key != key):
                raise UserError(f"bytes {offset} to {end} are no sample", file=self.path, cure="write the shards again")
            key, at = member_key, member.end
            files[extension] = span[member.data_offset : member.data_offset + member.size]
        if not files:
            raise UserError(f"no sample begins at byte {offset}", file=self.path, cure="write the shards again")
        return key, files

    def close(self) -> None:
        """Close the file; harmless when called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> TarReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def split_member(name: str) -> tuple[str, str]:
    """Split `<folder>/<key>.<extension>` at the first dot of the file name, as WebDataset does."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


def iterate_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every sample of a shard, neighbouring members with one key, in order as (key, {extension: bytes})."""
    with TarReader(path) as reader:
        key: str | None = None
        files: dict[str, bytes] = {}
        for member in reader.members.values():
            member_key, extension = split_member(member.name)
            if key is not None and member_key != key:
                yield key, files
                files = {}
            key = member_key
            files[extension] = reader.read_at(member)
        if key is not None:
            yield key, files


def places(index: Mapping[str, Any]) -> Iterator[tuple[str, str, int, int]]:
    """(key, shard's file name, offset, end) of every sample of an index, in order."""
    for shard in index["shards"]:
        ends = [*shard["offsets"][1:], shard["bytes"]]
        for key, offset, end in zip(shard["keys"], shard["offsets"], ends, strict=True):
            yield key, shard["name"], offset, end


def read_index(folder: Path, *, stage: str = "shard") -> dict[str, Any]:
    """The `index.json` of a folder of shards.

    Raises:
        UserError: if it is missing or damaged; `stage` names the stage to run.
    """
    index = read_json(folder / "index.json", cure=f"run the {stage} stage")
    if not isinstance(index, dict) or "shards" not in index:
        raise UserError("this is no shard index", file=folder / "index.json", cure=f"run the {stage} stage")
    return index


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> str:
    """Write members, sorted by name, to `path` (not atomically); returns the archive's SHA-256."""
    with path.open("xb") as file:
        writer = TarWriter(file)
        for name, data in sorted(members):
            writer.add(name, data)
        writer.close()
        return writer.sha256


def walk(descriptor: int, path: Path) -> Iterator[Member]:
    """Members of an open archive; `path` is for messages only.

    Raises:
        UserError: if a header is damaged or the archive ends before its end mark.
    """
    offset = 0
    size = os.fstat(descriptor).st_size
    while True:
        block = os.pread(descriptor, BLOCK, offset)
        if len(block) < BLOCK:
            raise _truncated(path)
        if block == bytes(BLOCK):
            return
        member = _parse_header(block, offset, path)
        if member.end > size:
            raise _truncated(path)
        yield member
        offset = member.end


def _parse_header(block: bytes, offset: int, path: Path) -> Member:
    try:
        checksum = block[148:156]
        stored = int(checksum.partition(b"\0")[0].strip() or b"0", 8)
        size = int(block[124:136].partition(b"\0")[0].strip() or b"0", 8)
        base = block[:100].partition(b"\0")[0].decode()
        prefix = block[345:500].partition(b"\0")[0].decode() if block[345] else ""
    except ValueError as error:
        raise UserError(f"damaged tar header at byte {offset}", file=path, cure="write the archive again") from error
    if stored != sum(block) - sum(checksum) + 8 * ord(" "):
        raise UserError(f"damaged tar header at byte {offset}", file=path, cure="write the archive again")
    return Member(f"{prefix}/{base}" if prefix else base, offset, offset + BLOCK, size)


def _pread(descriptor: int, size: int, offset: int, path: Path) -> bytes:
    chunks = []
    while size > 0:
        chunk = os.pread(descriptor, size, offset)
        if not chunk:
            raise _truncated(path)
        chunks.append(chunk)
        size -= len(chunk)
        offset += len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise UserError("the archive does not exist", file=path, cure="run the stage that writes it") from None


def _truncated(path: Path) -> UserError:
    return UserError("the archive is truncated", file=path, cure="run the stage that writes it again")


def _padded(size: int) -> int:
    return size + (-size) % BLOCK


def _split_name(name: str) -> tuple[bytes, bytes]:
    raw = name.encode()
    if not raw or name.startswith("/") or b"\0" in raw:
        raise ValueError(f"{name!r} is no member name")
    if len(raw) <= 100:
        return b"", raw
    for cut in range(min(len(raw) - 1, 155), 0, -1):
        if raw[cut : cut + 1] == b"/" and len(raw) - cut - 1 <= 100:
            return raw[:cut], raw[cut + 1 :]
    raise ValueError(f"{name!r} is too long for a USTAR header")
