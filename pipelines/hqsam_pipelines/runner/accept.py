"""`hqsam repro --accept-code`: outputs that exist count as made by today's code.

For an update that rearranged or reworded code: every digest of code is another one, and a finished
run would start again from the first download. DVC's own `dvc commit` would also take changed data,
parameters and outputs; here a stage is accepted only if nothing but its code differs. Its command
is code, too: earlier versions of dvc.yaml repeated the stage's names there.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_pipelines.config import dvc_site, inputs
from hqsam_pipelines.config.env import PACKAGES
from hqsam_pipelines.config.graph import clear
from hqsam_pipelines.config.params import FILE, Params
from hqsam_pipelines.config.yaml_file import read_yaml
from hqsam_pipelines.runner.codegraph import STAGE, write_digests, write_protocols

CODE_FOLDER = "data/code"
PROTOCOL_FOLDER = "data/protocols"


@dataclass(frozen=True)
class Accepted:
    """What became of the stages.

    Attributes:
        accepted: Stages with no change but their code; dvc.lock now has the digests of today's
            code.
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

    if not (root / "dvc.lock").is_file():
        raise UserError("nothing has run yet", file=root / "dvc.lock", cure="run `hqsam repro`")
    write_digests(root, root / CODE_FOLDER)
    write_protocols(root, root / PROTOCOL_FOLDER)
    raw = read_yaml(root / FILE)
    if isinstance(raw, Mapping) and "benchmarks" in raw:
        inputs.write_digests(Params.of(raw, root / FILE), root)
    try:
        # DVC reads the names of stages from the current folder.
        with contextlib.chdir(root), dvc_site.open_repo(root) as repo:
            found = {name.rpartition(":")[2]: entries for name, entries in repo.status().items()}
            # Stages with today's command in dvc.lock plus the stage's own names, as dvc.yaml once
            # had them.
            content: Any = read_yaml(root / "dvc.lock")
            locked = {name: str(s.get("cmd")) for name, s in content.get("stages", {}).items()}
            commands = {stage.name: stage.cmd for stage in repo.index.stages}
            reworded = {
                name
                for name, now in commands.items()
                if locked.get(name) == f"{now} {name.partition('@')[2].replace('-', ' ')}"
            }
            # What `code` writes was written just now; its parameters are there so that names are
            # looked at.
            rest = {name: entries for name, entries in found.items() if name != STAGE}
            other = {
                name: why
                for name, entries in rest.items()
                if (why := _other_changes(entries, name in reworded))
            }
            accepted = [name for name in found if name not in other]
            logging.getLogger("dvc").setLevel(logging.WARNING)  # a line for each stage otherwise
            for name in accepted:
                repo.commit(name, force=True)
    except DvcException as error:
        raise clear(error, root) from error
    return Accepted(accepted, other)


def _other_changes(entries: Iterable[Any], reworded: bool) -> str:
    """Return what differs besides code, in DVC's words; empty if nothing does.

    Args:
        entries: DVC's status of a stage: `{"changed deps": {path: word}}`, or a text.
        reworded: Whether its command says the same as before.
    """
    other = []
    for entry in entries:
        for what, paths in entry.items() if isinstance(entry, Mapping) else [(str(entry), {})]:
            if not isinstance(paths, Mapping) or not paths:
                other += [what] if not (reworded and what == "changed command") else []
            elif what == "changed outs" and set(paths) <= {
                CODE_FOLDER,
                PROTOCOL_FOLDER,
                inputs.OUT,
            }:
                continue
            else:
                other += [
                    f"{path} ({word})" for path, word in paths.items() if not _is_code(path, word)
                ]
    return ", ".join(other)


def _is_code(path: str, word: Any) -> bool:
    if path.startswith(f"{inputs.OUT}/"):
        return bool(word == "new")  # files that were not watched before
    folders = (
        CODE_FOLDER,
        *(f"{folder}/{name}" for name, folder in PACKAGES.items() if folder != "."),
        "hqsam",
    )
    return word in ("modified", "new") and any(
        path == f or path.startswith(f"{f}/") for f in folders
    )
