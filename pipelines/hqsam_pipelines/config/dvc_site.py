"""DVC's site cache, kept inside the checkout: `python -m hqsam_pipelines.config.dvc_site` sets it up.

DVC keeps notes about the files of a checkout (their digests, indexes of folders) in a folder of its
own, by default one below /var/tmp that every user of the machine can write, and believes what it
finds there. Here it is `.hqsam/dvc`, which is this user's alone: by an absolute path in
`.dvc/config.local`, for whoever calls DVC in this checkout, and by the environment of the DVC
processes that our own commands start. A place that the user chose is left alone; `hqsam doctor`
looks at it.
"""

from __future__ import annotations

import configparser
import contextlib
import importlib
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hqsam_base import own_code
from hqsam_base.atomic import atomic_file
from hqsam_base.errors import UserError
from hqsam_base.locks import locked
from hqsam_base.terminal import say
from hqsam_pipelines.config import dvc_params, env

VARIABLE = "DVC_SITE_CACHE_DIR"
FOLDER = "dvc"


def folder(root: Path) -> Path:
    """The folder of a checkout, made if needed, mode 0700."""
    found = env.make_state_dir(root) / FOLDER
    found.mkdir(mode=0o700, exist_ok=True)
    found.chmod(0o700)
    return found


def environment(root: Path, given: Mapping[str, str]) -> dict[str, str]:
    """A copy of an environment that names the checkout's folder, unless it names one already."""
    return {VARIABLE: str(folder(root)), **given}


def open_repo(root: Path) -> Any:
    """`dvc.repo.Repo` of the checkout with its site cache there, whatever the configuration says."""
    from dvc.repo import Repo

    dvc_params.install()
    return Repo(str(root), config={"core": {"site_cache_dir": str(folder(root))}})


def configure(root: Path) -> bool:
    """Name the folder in `.dvc/config.local`, unless that names one already. Quick where nothing is to be done.

    Returns:
        Whether the file was written. It is also where it names the folder of another place that
        this checkout was moved from.
    """
    if not (root / ".dvc").is_dir():
        return False
    wanted = folder(root)
    if not _is_to_be_written(_configured(root), wanted):
        return False
    with locked(env.state_dir(root) / "dvc-config.lock"):
        if not _is_to_be_written(_configured(root), wanted):
            return False  # another process was faster
        # DVC's own `Config.edit` writes ASCII only and reads UTF-8: a checkout may lie in a folder
        # called `données`
        from configobj import ConfigObj, ConfigObjError

        path = root / ".dvc" / "config.local"
        try:
            config = ConfigObj(str(path), encoding="utf-8", write_empty_values=True)
        except (ConfigObjError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot be read: {error}", file=path, cure="fix or delete it: DVC reads it, too"
            ) from None
        config.setdefault("core", {})["site_cache_dir"] = str(wanted)
        with atomic_file(path) as file:
            config.write(file)
    return True


def fault(root: Path) -> str | None:
    """What is wrong with the place that DVC will take when it is called here, with the cure; None if nothing is."""
    given = os.environ.get(VARIABLE)
    place, named_by = (
        (given, VARIABLE)
        if given
        else (_configured(root), "core.site_cache_dir in .dvc/config.local")
    )
    if not place:
        return (
            "DVC's site cache is shared by all users of the machine: `python -m "
            "hqsam_pipelines.config.dvc_site` sets up one here"
        )
    private = False
    with contextlib.suppress(OSError):
        found = Path(place).stat()
        private = found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022
    if not Path(place).is_absolute() or not private:
        cure = f"`unset {VARIABLE}`" if given else "take that line out and run `hqsam doctor` again"
        return (
            f"{named_by} is {place}, which other users can write, or which is not there: {cure}, "
            f"or make it with mode 0700"
        )
    return None


def _configured(root: Path) -> str | None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read(root / ".dvc" / "config.local", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return None  # DVC itself says what is wrong with it
    return parser.get("core", "site_cache_dir", fallback="").strip("'\"") or None


def _is_to_be_written(found: str | None, wanted: Path) -> bool:
    ours_elsewhere = (
        found is not None and Path(found).parts[-2:] == wanted.parts[-2:] and Path(found) != wanted
    )
    return found is None or ours_elsewhere


def main() -> int:
    """Set up the checkout around the current folder. Returns the exit status."""
    try:
        if own_code.use_here():
            return int(importlib.import_module("hqsam_pipelines.config.dvc_site").main())
        root = env.repository_root()
        configure(root)
    except UserError as error:
        say(str(error), err=True)
        return 1
    if (found := fault(root)) is not None:
        say(found, err=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
