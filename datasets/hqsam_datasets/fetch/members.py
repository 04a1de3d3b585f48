"""Only the needed members of a large remote zip, by range requests: LVIS val needs 15,000 of 118,287 images.

The directory at the zip's end says where each member lies; each is asked for with a range of its
own, over several connections, checked against its CRC, and appended to a tar in the order of the
names. So the result does not depend on interruptions, and what is whole after one is kept.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hqsam_base.atomic import disk_full_is_user_error, write_json
from hqsam_base.errors import UserError
from hqsam_base.json_stream import iterate_members
from hqsam_datasets.fetch.cloud import object_store, version_of
from hqsam_datasets.fetch.tar_headers import most_bytes, too_large
from hqsam_datasets.fetch.transfer import (
    CONTENT_RANGE,
    SPACE_CURE,
    DownloadError,
    RetryError,
    Transfer,
    check_status,
    http_client,
    persist,
    validator_of,
)
from hqsam_datasets.formats import tar
from hqsam_datasets.formats.tar_writer import TarWriter

Read = Callable[[int, int], bytes]
"""Bytes `start` to `end` (exclusive) of the remote file; fewer at its end."""
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
)
"""What the standard library raises on damaged zips."""
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_SLACK = (
    1024  # bytes: the header before a member may have a longer extra field than the directory says
)
_BLOCK = 1 << 20
_MOST_MEMBER = 256 << 20  # bytes; they are in memory, a few at a time


def image_names(path: Path) -> set[str]:
    """`<folder>/<file>` of every image of an annotation file in LVIS's format, or of a zip that holds one.

    Raises:
        UserError: if it is no such file.
    """
    if not zipfile.is_zipfile(path):
        return _names_in(path)
    with _zip_of(path) as archive:
        names = (name for name in archive.namelist() if not name.startswith("__MACOSX/"))
        member = next((name for name in names if name.endswith(".json")), None)
        if member is None:
            raise UserError("the zip holds no JSON", file=path, cure="fetch the file again")
        scratch = path.with_name(f"{path.name}.json.part")
        try:
            with archive.open(member) as source, scratch.open("wb") as target:
                while chunk := source.read(_BLOCK):
                    target.write(chunk)
                    if target.tell() > most_bytes(path):
                        raise too_large(
                            path, "its JSON has more than", target.tell(), most_bytes(path)
                        )
            return _names_in(scratch)
        except (*_ZIP_ERRORS, OSError) as error:
            if not is_damage(error):
                raise
            path.unlink()  # no digest told: the next run fetches it again
            raise UserError(
                f"the zip is damaged: {type(error).__name__}: {error}",
                file=path,
                cure="run the stage again",
            ) from error
        finally:
            scratch.unlink(missing_ok=True)


def is_damage(error: Exception) -> bool:
    """Return whether an error means damaged bytes: `zipfile` seeks to impossible offsets then."""
    return not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)


def _zip_of(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (*_ZIP_ERRORS, OSError) as error:
        if not is_damage(error):
            raise
        path.unlink()
        raise UserError(
            f"the zip is damaged: {error}", file=path, cure="run the stage again"
        ) from error


def _names_in(path: Path) -> set[str]:
    names = set()
    for key, record in iterate_members(
        path, ("images",), problem="not valid JSON", cure="fetch the file again"
    ):
        if key == "images" and record is not None:
            names.add("/".join(str(record.get("coco_url", "")).split("/")[-2:]))
    return names


def download_members(url: str, names: set[str], part: Path, how: Transfer) -> None:
    """Write the members `names` of the zip at `url` (http, https, file, or an object store) to the tar `part`.

    Raises:
        DownloadError: if the server gives no ranges, the file changes on the way, a member is
            damaged or missing, or it fails too often.
        UserError: if the disk is full.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        try:
            with _opened(url) as (read, total, identity):
                _collect(read, total, identity, names, part, how)
        except (
            RetryError,
            OSError,
        ) as error:  # nothing that another request to the same place would fix
            raise DownloadError(str(error)) from error
        return
    with http_client(how) as client:

        def attempt() -> None:
            with client.stream("GET", url, headers={"Range": "bytes=0-0"}) as first:
                check_status(first, 0)
                told = CONTENT_RANGE.fullmatch(first.headers.get("Content-Range", "").strip())
                if first.status_code != 206 or told is None or told[3] == "*":
                    raise DownloadError(
                        "the server gives no ranges, so single members are unavailable"
                    )
                total = int(told[3])
                validator = validator_of(first)

            def read(start: int, end: int) -> bytes:
                headers = {"Range": f"bytes={start}-{end - 1}"} | (
                    {"If-Range": validator} if validator else {}
                )
                with client.stream("GET", url, headers=headers) as answer:
                    check_status(answer, start)
                    if answer.status_code != 206:
                        raise DownloadError(
                            "the file changed on the server while its members were fetched"
                        )
                    return _no_more_than(end - start, answer.iter_raw())

            _collect(read, total, f"{url} {validator}", names, part, how)

        persist(attempt, part, how)


@contextlib.contextmanager
def _opened(url: str) -> Iterator[tuple[Read, int, str]]:
    """How to read a zip on this machine or in an object store, its length, and what identifies it."""
    if urlsplit(url).scheme == "file":
        with Path(unquote(urlsplit(url).path)).open("rb") as file:
            yield (
                lambda start, end: os.pread(file.fileno(), end - start, start),
                file.seek(0, io.SEEK_END),
                url,
            )
    else:
        with object_store(url) as (system, path):
            info = system.info(path)
            total, identity = int(info["size"]), f"{url} {version_of(info)}"
            yield (
                lambda start, end: bytes(system.cat_file(path, start=start, end=end)),
                total,
                identity,
            )


def _no_more_than(size: int, chunks: Iterator[bytes]) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > size:
            raise DownloadError(
                f"the server sends more than the {size} bytes that it was asked for"
            )
    return bytes(data)


def _collect(
    read: Read, total: int, identity: str, names: set[str], part: Path, how: Transfer
) -> None:
    """Append what `part` lacks, in the order of the names, and the end of the archive."""
    wanted = _wanted(read, total, names)
    state = part.with_name(part.name + ".json")
    if (
        not part.exists()
        or not state.exists()
        or json.loads(state.read_bytes()) != {"identity": identity, "n": len(wanted)}
    ):
        part.unlink(missing_ok=True)
        write_json(state, {"identity": identity, "n": len(wanted)})
    with (
        disk_full_is_user_error(part, SPACE_CURE),
        part.open("r+b" if part.exists() else "xb") as file,
    ):
        done = offset = 0  # members that the part holds whole, and where the next one goes
        # Errors: the tail of an interrupted run, or a file just made.
        with contextlib.suppress(UserError, OSError):
            for member in tar.walk(file.fileno(), part):
                done, offset = done + 1, member.end
        file.truncate(offset)
        file.seek(offset)
        writer = TarWriter(file, offset=offset)
        try:
            had, in_all = (sum(info.file_size for info in some) for some in (wanted[:done], wanted))
            for name, data in _fetched(read, total, wanted[done:], how.segments):
                try:
                    writer.add(name, data)
                except ValueError as error:  # a name that no tar can hold
                    raise DownloadError(str(error)) from error
                had += len(data)
                how.progress(had, in_all)
            writer.close()
        finally:
            file.flush()
            os.fsync(file.fileno())
    state.unlink()


def _wanted(read: Read, total: int, names: set[str]) -> list[zipfile.ZipInfo]:
    """What the zip's directory says of the named members, in the order of their names."""
    try:
        with zipfile.ZipFile(_RemoteFile(read, total)) as archive:
            directory = {
                info.filename: info
                for info in archive.infolist()
                if info.filename and not info.is_dir()
            }
    except (*_ZIP_ERRORS, OSError) as error:
        if not is_damage(error):
            raise
        raise DownloadError(f"not a zip archive: {error}") from error
    folders = {name.rpartition("/")[0] for name in directory}
    named_here = {name for name in names if name.rpartition("/")[0] in folders}
    missing = sorted(named_here - directory.keys())
    if missing or not named_here:
        raise DownloadError(
            f"the zip lacks {len(missing) or len(names)} of the named files, for one "
            f"{(missing or ['all'])[0]}"
        )
    return [directory[name] for name in sorted(named_here)]


def _fetched(
    read: Read, total: int, wanted: list[zipfile.ZipInfo], connections: int
) -> Iterator[tuple[str, bytes]]:
    """Members in order, a few requests ahead."""
    with ThreadPoolExecutor(connections) as pool:
        waiting: deque[tuple[str, Future[bytes]]] = deque()
        try:
            for info in wanted:
                waiting.append((info.filename, pool.submit(_member, read, total, info)))
                if len(waiting) >= 4 * connections:
                    name, future = waiting.popleft()
                    yield name, future.result()
            for name, future in waiting:
                yield name, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _member(read: Read, total: int, info: zipfile.ZipInfo) -> bytes:
    """One member's bytes, checked against the directory's CRC."""
    size = max(info.file_size, info.compress_size)
    if size > _MOST_MEMBER:
        raise DownloadError(f"{info.filename}: {size} bytes are not an image")
    start = info.header_offset
    fixed = _LOCAL_HEADER.size + len(info.filename.encode()) + len(info.extra)
    raw = read(start, min(total, start + fixed + _SLACK + info.compress_size))
    if len(raw) < _LOCAL_HEADER.size or raw[:4] != b"PK\x03\x04":
        raise RetryError(f"{info.filename}: the answer is not a member of a zip")
    fields = _LOCAL_HEADER.unpack_from(raw)
    begin = _LOCAL_HEADER.size + fields[9] + fields[10]
    body = raw[begin : begin + info.compress_size]
    try:
        inflate = zlib.decompressobj(-15)
        data = (
            inflate.decompress(body, info.file_size + 1)
            if info.compress_type == zipfile.ZIP_DEFLATED
            else body
        )
    except zlib.error as error:
        raise RetryError(f"{info.filename}: {error}") from error
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise RetryError(f"{info.filename}: the bytes are not those of the zip's directory")
    return data


class _RemoteFile(io.RawIOBase):
    """What `zipfile` needs to read the directory: seek and read, the end read in one piece."""

    def __init__(self, read: Read, total: int) -> None:
        self._get, self._total, self._position = read, total, 0
        self._tail_at = max(0, total - _BLOCK)
        self._tail: bytes | None = None

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._total}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Bytes from the position on."""
        end = self._total if size < 0 else min(self._total, self._position + size)
        start, self._position = self._position, max(self._position, end)
        if start >= end:
            return b""
        if start < self._tail_at:
            return self._get(start, end)
        if self._tail is None:
            self._tail = self._get(self._tail_at, self._total)
        return self._tail[start - self._tail_at : end - self._tail_at]
