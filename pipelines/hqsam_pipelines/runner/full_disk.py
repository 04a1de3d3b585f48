"""One message for a full disk, whoever met it: a stage, DVC, the Prefect server or the command itself."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_pipelines.config import env

FULL_BYTES = 64 * 1024
"""A file system with less free space counts as full: SQLite and Git fail before it is 0."""

SIGNS = ("No space left on device", "Disk quota exceeded", "database or disk is full")
"""What programs say of it."""


def explained(error: BaseException, root: Path | None) -> UserError | None:
    """The message for an error that comes from a full disk; None if it does not.

    Args:
        error: Its causes are looked at, too. An error without a number counts while one of the
            file systems is full: libraries drop the number.
        root: The repository, if there is one.
    """
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    told = [e for e in chain if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT)]
    named = next((Path(os.fsdecode(e.filename)) for e in told if e.filename), None)
    place = named or full_place(root)
    if not told and (place is None or isinstance(error, UserError)):
        return None
    return message(place, root)


def full_place(root: Path | None) -> Path | None:
    """The first full one of the folders that runs write to: the repository, its state, DVC's cache, temporary files."""
    inside = [root / env.STATE_DIR, root / "data", root / ".dvc" / "cache", root] if root else []
    if root is not None and (cache := _configured_cache(root)):
        inside.insert(0, cache)
    for folder in (*inside, Path(tempfile.gettempdir())):
        if folder.exists() and shutil.disk_usage(folder).free < FULL_BYTES:
            return folder
    return None


def message(place: Path | None, root: Path | None) -> UserError:
    """The message; `place` is what could not be written, None if nobody knows."""
    cure = "free some space there, then run again: what is finished stays"
    if root is not None and place is not None and root / env.STATE_DIR in (place, *place.parents):
        cure = f"{cure}; `hqsam server stop` and removing .hqsam/prefect frees the record of runs"
    elif place is not None and "cache" in place.parts:
        cure = f"{cure}; `dvc gc --workspace` removes what no stage of today refers to"
    return UserError("the disk is full", file=place or root, cure=cure)


def _configured_cache(root: Path) -> Path | None:
    """The folder of `dvc cache dir`, if one was chosen."""
    try:
        from configobj import ConfigObj
    except ImportError:  # the base install has no DVC
        return None
    for name in ("config.local", "config"):
        file = root / ".dvc" / name
        if file.is_file():
            found = ConfigObj(str(file)).get("cache", {}).get("dir")
            if found:
                return (root / ".dvc" / str(found)).resolve()
    return None
