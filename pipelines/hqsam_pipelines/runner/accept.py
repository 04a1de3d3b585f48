"""`hqsam repro --accept-code`: outputs that exist count as made by today's code.

For an update that rearranged or reworded code: every digest of code is another one, and a finished run
would start again from the first download. DVC's own `dvc commit` would also take changed data, parameters
and outputs; here a stage is accepted only if nothing but its code differs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_pipelines.config.env import PACKAGES
from hqsam_pipelines.runner.codegraph import write_digests

CODE_FOLDER = "data/code"


@dataclass(frozen=True)
class Accepted:
    """What became of the stages.

    Attributes:
        accepted: Stages with no change but their code; dvc.lock now has the digests of today's code.
        left: Stage to what else differs from dvc.lock; these are unchanged and run again.
    """

    accepted: list[str]
    left: dict[str, str]


def accept_code(root: Path) -> Accepted:
    """Record today's code in dvc.lock for every stage that differs from it in nothing else.

    Args:
        root: The repository.

    Raises:
        UserError: There is no finished run, or DVC cannot read the pipeline.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if not (root / "dvc.lock").is_file():
        raise UserError("nothing has run yet", file=root / "dvc.lock", cure="run `hqsam repro`")
    write_digests(root, root / CODE_FOLDER)
    try:
        # DVC reads the names of stages from the current folder.
        with contextlib.chdir(root), Repo(str(root)) as repo:
            found = {name.rpartition(":")[2]: entries for name, entries in repo.status().items()}
            other = {name: why for name, entries in found.items() if (why := _other_changes(entries))}
            accepted = [name for name in found if name not in other]
            logging.getLogger("dvc").setLevel(logging.WARNING)  # a line for each stage otherwise
            for name in accepted:
                repo.commit(name, force=True)
    except DvcException as error:
        raise UserError(f"DVC: {error}", file=root / "dvc.yaml") from error
    return Accepted(accepted, other)


def _other_changes(entries: Iterable[Any]) -> str:
    """Return what differs besides code, in DVC's words; empty if nothing does.

    Args:
        entries: DVC's status of a stage: `{"changed deps": {path: word}}`, or a text.
    """
    other = []
    for entry in entries:
        for what, paths in entry.items() if isinstance(entry, Mapping) else [(str(entry), {})]:
            if not isinstance(paths, Mapping) or not paths:
                other.append(what)
            elif what == "changed outs" and set(paths) == {CODE_FOLDER}:
                continue
            else:
                other += [f"{path} ({word})" for path, word in paths.items() if not _is_code(path, word)]
    return ", ".join(other)


def _is_code(path: str, word: Any) -> bool:
    folders = (
        CODE_FOLDER,
        *(f"{folder}/{name}" for name, folder in PACKAGES.items() if folder != "."),
        "hqsam",
    )
    return word in ("modified", "new") and any(path == f or path.startswith(f"{f}/") for f in folders)
