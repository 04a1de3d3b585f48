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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hqsam_base.atomic import atomic_folder, clear_stale, link_or_copy, read_json, write_json
from hqsam_base.errors import UserError
from hqsam_base.filenames import AmbiguousNameError, is_hidden, meant
from hqsam_base.foreign_names import NameRefusedError, TwinError, refuse_twins, relative_path
from hqsam_base.locks import locked
from hqsam_datasets.fetch import tar_headers

VERSION = 1
_SHOWN = 80  # characters of a name in a message
COMPLETE = ".complete.json"
_FOREIGN_SUFFIXES = (".7z", ".rar", ".zst", ".tzst")
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_ARCHIVES = (".zip", *_TAR_SUFFIXES, *_FOREIGN_SUFFIXES)
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
        if _marker(root) == wanted:
            clear_stale(root)
            return root
        with atomic_folder(root, durable=False) as folder:
            for name, _ in files:
                _unpack(archive_dir / name, folder)
            os.sync()  # one flush for tens of thousands of files, before the marker says complete
            write_json(folder / COMPLETE, wanted)
    return root


class NotHadError(UserError):
    """Something is not in an extracted tree, and the archive lacks optional files, which may be why."""


def missing_files(root: Path) -> dict[str, str]:
    """Optional files that the archive of an extracted tree lacks, with what a person can do about each."""
    marker = _marker(root)
    return dict(marker.get("missing", {})) if isinstance(marker, dict) else {}


def is_embedded(archive: Path) -> bool:
    """Whether a fetched archive holds the embedded sample, and not what its publisher has."""
    return bool(read_json(archive / "fetch.json").get("embedded"))


def not_there(problem: str, root: Path, *, key: str | None = None, cure: str) -> UserError:
    """Return the error for something missing below `root`; a `NotHadError` if files of the archive are unavailable."""
    missing = missing_files(root)
    if not missing:
        return UserError(problem, file=root, key=key, cure=packed_inside(root) or cure)
    told = "; ".join(f"{name} is unavailable: {to_do}" for name, to_do in sorted(missing.items()))
    return NotHadError(problem, file=root, key=key, cure=told)


def packed_inside(root: Path) -> str:
    """What to do about archives inside the archive, as a shared folder is downloaded; empty if there are none."""
    found = (path for folder in _breadth_first(root, 2) for path in list_files(folder, _ARCHIVES))
    inner = [path.relative_to(root).as_posix() for path in found] if root.is_dir() else []
    return (
        f"it holds archives itself ({', '.join(inner[:3])}): unpack those, and pack their contents"
        if inner
        else ""
    )


def find_root(root: Path, *candidates: str, depth: int = 3, any_case: bool = True) -> Path:
    """The folder that holds one of the `candidates`; see `found_below`."""
    return _find(root, candidates, depth, any_case)[0]


def found_below(root: Path, *candidates: str, depth: int = 3, any_case: bool = True) -> Path:
    """One of the `candidates` (relative paths, in order of preference), searched from `root`.

    Repacks of a data set differ in the folders around it; adapters name what they need and get
    where it is. The nearest one to `root` wins, then the first by name. People unpack and pack
    again on systems that do not mind the case of names: where no name fits exactly (and unless
    `any_case` is false), one that differs only in case does.

    Raises:
        UserError: listing what was looked for and what is there (see `not_there`), or two that
            differ only in case.
    """
    return _find(root, candidates, depth, any_case)[1]


def below(folder: Path, path: str) -> Path:
    """`folder / path`, or what stands there and is meant by it (see `hqsam_base.filenames`)."""
    return _meant(folder, path) or folder / path


def _find(root: Path, candidates: Sequence[str], depth: int, any_case: bool) -> tuple[Path, Path]:
    """The folder around the first candidate that is there, and the candidate."""
    for candidate in candidates:
        for folder in _breadth_first(root, depth):
            if (folder / candidate).exists():
                return folder, folder / candidate
    for candidate in candidates if any_case else ():
        for folder in _breadth_first(root, depth):
            found = _meant(folder, candidate)
            if found is not None:
                return folder, found
    there = (
        ", ".join(sorted(p.name + "/" * p.is_dir() for p in root.iterdir())[:20])
        if root.is_dir()
        else "nothing"
    )
    problem = f"none of {', '.join(candidates)} found in the archive; its top level holds: {there}"
    raise not_there(
        problem, root, cure="check that the archive is the one that the data sheet describes"
    )


def _meant(folder: Path, path: str) -> Path | None:
    try:
        return meant(folder, path)
    except AmbiguousNameError as error:
        raise UserError(
            str(error), file=folder, cure="keep one of them, or name one of them so"
        ) from None


def list_files(folder: Path, suffixes: Sequence[str] = ()) -> list[Path]:
    """Files directly inside `folder`, sorted by name; with `suffixes` (lower case) only those.

    Raises:
        UserError: if there is no such folder.
    """
    return [folder / name for name in sorted(_names(folder, suffixes))]


def has_files(folder: Path, suffixes: Sequence[str] = ()) -> bool:
    """Whether `list_files` would list any; it stops at the first."""
    return any(True for _ in _names(folder, suffixes))


def _names(folder: Path, suffixes: Sequence[str]) -> Iterator[str]:
    if not folder.is_dir():
        cure = "check that the archive is the one that the data sheet describes"
        raise UserError("the folder does not exist", file=folder, cure=cure)
    wanted = tuple(suffixes) or ("",)
    with os.scandir(folder) as entries:
        for entry in entries:
            if (
                entry.name.lower().endswith(wanted)
                and not is_hidden(entry.name)
                and entry.is_file()
            ):
                yield entry.name


def _unpack(path: Path, root: Path) -> None:
    if not path.is_file():
        cure = f"delete {path.parent} and run the fetch stage again"
        raise UserError("a fetched file is missing", file=path, cure=cure)
    name = path.name.lower()
    if name.endswith(_FOREIGN_SUFFIXES):
        cure = (
            "unpack it, pack the files as a zip or tar, and name that under archives in params.yaml"
        )
        raise UserError("no reader for this kind of archive", file=path, cure=cure)
    if not name.endswith((".zip", *_TAR_SUFFIXES)):
        link_or_copy(path, root / path.name)
        return
    suffixes = (".zip", *sorted(_TAR_SUFFIXES, key=len, reverse=True))
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


def _marker(root: Path) -> Any:
    return read_json(root / COMPLETE) if (root / COMPLETE).is_file() else None


def _breadth_first(root: Path, depth: int) -> Iterator[Path]:
    level = [root]
    for _ in range(depth + 1):
        yield from level
        children: list[Path] = []
        for folder in filter(Path.is_dir, level):
            with os.scandir(folder) as entries:
                inner = (entry for entry in entries if entry.is_dir(follow_symlinks=False))
                children += [Path(entry.path) for entry in inner]
        level = sorted(children)


def _is_junk(member: PurePosixPath) -> bool:
    return bool(_JUNK.intersection(member.parts)) or member.name.startswith("._")


def _damaged(path: Path, error: Exception) -> UserError:
    cure = f"the file is damaged: delete {path.parent} and run the fetch stage again"
    return UserError(f"cannot be unpacked: {type(error).__name__}: {error}", file=path, cure=cure)


def _unsafe(path: Path, member: str, why: str) -> UserError:
    cure = "do not use this archive; fetch it from a mirror that you trust"
    return UserError(f"member {member!r} is refused: {why}", file=path, cure=cure)
