"""The contents of fetched archives, unpacked safely.

Where the files of an archive end up under the extracted root:

- a zip or tar whose members all lie in one top-level folder named like the archive's stem is
  unpacked into the root:
  `DIS5K.zip` with `DIS5K/...` gives `<root>/DIS5K/...`;
- any other zip or tar is unpacked into a folder named like its stem: `cascade_psp.zip` with
  `DUTS-TR/...` gives
  `<root>/cascade_psp/DUTS-TR/...`. So `<root>/<stem>/` exists either way;
- a zip with a single file named like the stem (`lvis_v1_val.json.zip`) gives that file:
  `<root>/lvis_v1_val.json`;
- every other file (`.json`, ...) is linked into the root.

Refused, with the member named: absolute paths, `..`, backslashes (but for zips made on Windows,
where they part folders), links and devices, two names that differ only in case or Unicode form,
encrypted members, and archives that would fill the disk or grow implausibly. What desktop systems
leave behind (`__MACOSX/`, `.DS_Store`, `._*`, `Thumbs.db`) is skipped.
"""

from __future__ import annotations

import errno
import functools
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from hqsam_base.atomic import atomic_folder, clear_stale, link_or_copy, read_json, write_json
from hqsam_base.errors import UserError
from hqsam_base.foreign_names import NameRefusedError, TwinError, refuse_twins, relative_path
from hqsam_base.locks import locked
from hqsam_datasets.fetch import tar_headers
from hqsam_datasets.fetch.tree import COMPLETE, FOREIGN_SUFFIXES, TAR_SUFFIXES, marker

VERSION = 1
_SHOWN = 80  # characters of a name in a message
_PARSER_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
)
"""What the parsers of the standard library raise on damaged archives."""
_JUNK = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class _Entry:
    """A regular file inside an archive: cleaned path, size, stored size, and how to open it."""

    path: PurePosixPath
    size: int
    stored: int
    open: Callable[[], IO[bytes]]


def extracted(archive_dir: Path, work: Path) -> Path:
    """The extracted tree of a fetched archive: `work/<archive>`, made now unless it is there and up to date.

    Safe to call from several processes at once; an interrupted extraction is never taken for a
    complete one.

    Args:
        archive_dir: folder that `fetch` wrote.
        work: folder for extracted trees; disposable.

    Returns:
        The root described in the module's docstring.

    Raises:
        UserError: if an archive is damaged, truncated or unsafe; the message names the file and the
            member.
    """
    path = archive_dir / "fetch.json"
    record = read_json(path, cure=f"run the fetch stage of {archive_dir.name}")
    try:
        files = [[str(file["name"]), str(file["sha256"])] for file in record["files"]]
        missing = dict(record.get("missing", {}))
    except (KeyError, TypeError, AttributeError) as error:
        cure = f"delete {archive_dir} and run the fetch stage again"
        problem = f"not a record of fetched files: {error!r}"
        raise UserError(problem, file=path, cure=cure) from error
    wanted = {"version": VERSION, "files": files} | ({"missing": missing} if missing else {})
    root = work / archive_dir.name
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / f".{archive_dir.name}.lock", remove=True):
        if marker(root) == wanted:
            clear_stale(root)
            return root
        with atomic_folder(root, durable=False) as folder:
            for name, _ in files:
                _unpack(archive_dir / name, folder)
            os.sync()  # one flush for tens of thousands of files, before the marker says complete
            write_json(folder / COMPLETE, wanted)
    return root


def is_embedded(archive: Path) -> bool:
    """Whether a fetched archive holds the embedded sample, and not what its publisher has."""
    return bool(read_json(archive / "fetch.json").get("embedded"))


def _unpack(path: Path, root: Path) -> None:
    if not path.is_file():
        cure = f"delete {path.parent} and run the fetch stage again"
        raise UserError("a fetched file is missing", file=path, cure=cure)
    name = path.name.lower()
    if name.endswith(FOREIGN_SUFFIXES):
        cure = (
            "unpack it, pack the files as a zip or tar, and name that under archives in params.yaml"
        )
        raise UserError("no reader for this kind of archive", file=path, cure=cure)
    if not name.endswith((".zip", *TAR_SUFFIXES)):
        link_or_copy(path, root / path.name)
        return
    suffixes = (".zip", *sorted(TAR_SUFFIXES, key=len, reverse=True))
    stem = path.name[: -len(next(suffix for suffix in suffixes if name.endswith(suffix)))]
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                _write_all(path, _zip_entries(path, archive), root, stem)
        else:
            with tar_headers.opened(path) as archive:
                _write_all(path, _tar_entries(path, archive), root, stem)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(
                "a name is too long for this folder", file=path, cure="work in a shorter path"
            ) from error
        if (
            error.errno != errno.EINVAL
        ):  # a damaged directory makes zipfile seek to impossible places
            raise
        raise _damaged(path, error) from error
    except (
        NotImplementedError
    ) as error:  # Windows packs what is larger than 2 GB by a method of its own
        cure = (
            "unpack it with another program, and pack the files again as a plain zip or tar of "
            "this name"
        )
        raise UserError(f"cannot be unpacked: {error}", file=path, cure=cure) from error
    except _PARSER_ERRORS as error:
        raise _damaged(path, error) from error


def _zip_entries(path: Path, archive: zipfile.ZipFile) -> list[_Entry]:
    entries = []
    for info in archive.infolist():
        mode = info.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(path, info.filename, "it is a link or a device")
        if info.flag_bits & 1:
            raise _unsafe(path, info.filename, "it is encrypted")
        # zipfile turns backslashes into slashes on some systems only: judge the name as stored.
        name = info.orig_filename if "\\" in info.orig_filename else info.filename
        if info.create_system == 0 and "/" not in info.orig_filename:
            name = name.replace("\\", "/")  # some Windows programs part folders by backslashes
        member = _clean(path, name)
        if not name.endswith("/") and not _is_junk(member):
            opener = functools.partial(archive.open, info)
            entries.append(_Entry(member, info.file_size, info.compress_size, opener))
    return entries


def _tar_entries(path: Path, archive: tarfile.TarFile) -> list[_Entry]:
    entries = []
    for info in tar_headers.members(archive, path):
        if not (info.isreg() or info.isdir()):
            raise _unsafe(path, info.name, "it is a link or a device")
        name = info.name
        try:
            name.encode()
        except UnicodeEncodeError:
            # Not UTF-8 (tars from old Chinese or Japanese systems): decoded as zipfile would.
            name = name.encode("utf-8", "surrogateescape").decode("cp437")
        member = _clean(path, name)
        if info.isreg() and not _is_junk(member):
            entries.append(_Entry(member, info.size, info.size, _tar_opener(archive, info)))
    return entries


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opener() -> IO[bytes]:
        stream = archive.extractfile(info)
        assert stream is not None  # only regular files become entries
        return stream

    return opener


def _clean(path: Path, name: str) -> PurePosixPath:
    try:
        return relative_path(name)
    except NameRefusedError as error:
        raise _unsafe(
            path, name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...", str(error)
        ) from None


def _write_all(path: Path, entries: list[_Entry], root: Path, stem: str) -> None:
    if not entries:
        raise UserError("the archive is empty", file=path, cure="fetch it from another mirror")
    try:
        refuse_twins(str(entry.path) for entry in entries)
    except TwinError as error:
        raise _unsafe(path, error.name, str(error)) from None
    _check_sizes(path, entries, root)
    single = len(entries) == 1 and str(entries[0].path) == stem
    has_root = all(len(entry.path.parts) > 1 and entry.path.parts[0] == stem for entry in entries)
    target = root if single or has_root else root / stem
    folders: set[Path] = set()
    for entry in entries:
        out = target / entry.path
        if out.parent not in folders:
            out.parent.mkdir(parents=True, exist_ok=True)
            folders.add(out.parent)
        with entry.open() as source, out.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            if file.tell() != entry.size:
                raise _unsafe(path, str(entry.path), "its length differs from the directory's")


def _check_sizes(path: Path, entries: list[_Entry], root: Path) -> None:
    for entry in entries:
        if entry.size > max(tar_headers.RATIO_APPLIES_ABOVE, tar_headers.MAX_RATIO * entry.stored):
            raise _unsafe(
                path, str(entry.path), f"it expands from {entry.stored} to {entry.size} bytes"
            )
    total, free, most = (
        sum(e.size for e in entries),
        shutil.disk_usage(root).free,
        tar_headers.most_bytes(path),
    )
    if total > most:
        raise tar_headers.too_large(
            path, "its members have", total, most
        )  # those of a zip may share their bytes
    if total > free:
        gib = 1 << 30
        problem = (
            f"not enough disk space: {total / gib:.2f} GiB to unpack, {free / gib:.2f} GiB free"
        )
        raise UserError(problem, file=path, cure="free some space and run the stage again")


def _is_junk(member: PurePosixPath) -> bool:
    return bool(_JUNK.intersection(member.parts)) or member.name.startswith("._")


def _damaged(path: Path, error: Exception) -> UserError:
    cure = f"the file is damaged: delete {path.parent} and run the fetch stage again"
    return UserError(f"cannot be unpacked: {type(error).__name__}: {error}", file=path, cure=cure)


def _unsafe(path: Path, member: str, why: str) -> UserError:
    cure = "do not use this archive; fetch it from a mirror that you trust"
    return UserError(f"member {member!r} is refused: {why}", file=path, cure=cure)
