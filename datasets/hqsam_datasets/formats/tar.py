"""Deterministic USTAR archives: written byte for byte alike, read at random without unpacking.

Headers carry mode 0644, uid, gid and mtime 0 and no owner names, so equal content gives equal bytes
on any machine. The archives are plain USTAR: `tar`, Python's `tarfile` and the `webdataset` library
read them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_datasets.formats import shard_index

BLOCK = 512
_ZEROS = bytes(BLOCK)


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
        return self.data_offset + padded(self.size)


class TarReader:
    """Random access to an uncompressed archive: headers are read once, data on demand.

    Reads use `os.pread`: one reader can serve several threads, and a forked worker can go on using
    it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise UserError(
                "the archive does not exist", file=path, cure="run the stage that writes it"
            ) from None
        self._members: dict[str, Member] | None = None

    @property
    def members(self) -> dict[str, Member]:
        """Name to member, in archive order."""
        if self._members is None:
            self._members = {member.name: member for member in walk(self._descriptor, self.path)}
        return self._members

    def spans(self) -> dict[str, tuple[int, int]]:
        """Map each key to the (offset, end) of its sample, headers and padding included, in archive order."""
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

        One read: with several, each letting go of the interpreter's lock, the loader's threads wait
        for each other.
        """
        span = self.read_span(offset, end)
        key, at = "", 0
        files: dict[str, bytes] = {}
        while (block := span[at : at + BLOCK]) and block != _ZEROS:
            member = _parse_header(block, at, self.path)
            member_key, extension = split_member(member.name)
            if member.end > len(span) or (files and member_key != key):
                raise UserError(
                    f"bytes {offset} to {end} are not a sample",
                    file=self.path,
                    cure="write the shards again",
                )
            key, at = member_key, member.end
            files[extension] = span[member.data_offset : member.data_offset + member.size]
        if not files:
            raise UserError(
                f"no sample begins at byte {offset}", file=self.path, cure="write the shards again"
            )
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
    """The `index.json` of a folder of shards, checked (see `shard_index.parse`).

    Raises:
        UserError: if it is missing or damaged; `stage` names the stage to run.
    """
    path, cure = folder / shard_index.FILE, f"run the {stage} stage"
    try:
        return shard_index.parse(path.read_bytes(), file=path, cure=cure)
    except FileNotFoundError:
        raise UserError("the file does not exist", file=path, cure=cure) from None


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
        raise UserError(
            f"damaged tar header at byte {offset}", file=path, cure="write the archive again"
        ) from error
    if stored != sum(block) - sum(checksum) + 8 * ord(" "):
        raise UserError(
            f"damaged tar header at byte {offset}", file=path, cure="write the archive again"
        )
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


def _truncated(path: Path) -> UserError:
    return UserError(
        "the archive is truncated", file=path, cure="run the stage that writes it again"
    )


def padded(size: int) -> int:
    """Bytes that `size` bytes of data take in an archive."""
    return size + (-size) % BLOCK
