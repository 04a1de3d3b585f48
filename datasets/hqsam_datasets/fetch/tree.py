"""Looking into an extracted tree: where what an adapter needs lies, and what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hqsam_base.atomic import read_json
from hqsam_base.errors import UserError
from hqsam_base.filenames import AmbiguousNameError, is_hidden, meant

COMPLETE = ".complete.json"
"""Written last into an extracted tree: what it was made of."""
FOREIGN_SUFFIXES = (".7z", ".rar", ".zst", ".tzst")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_ARCHIVES = (".zip", *TAR_SUFFIXES, *FOREIGN_SUFFIXES)


class NotHadError(UserError):
    """Something is not in an extracted tree, and the archive lacks optional files, which may be why."""


def missing_files(root: Path) -> dict[str, str]:
    """Optional files that the archive of an extracted tree lacks, with what a person can do about each."""
    noted = marker(root)
    return dict(noted.get("missing", {})) if isinstance(noted, dict) else {}


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


def marker(root: Path) -> Any:
    """What the extraction noted when it was complete; None before."""
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
