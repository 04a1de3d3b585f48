"""The last run of each profile: its dvc.lock, and the outputs that DVC's cache does not hold.

Profiles share names (the sample and `tiny` both train `nano`), and dvc.lock has one entry a name: a
run of one profile overwrites what the other's run left there. So a switch keeps both files' worth
of it aside, and brings it back with the profile: nothing runs again only because somebody looked at
another profile. Names of their own per profile would do it, too, but would change what every stage,
table and comparison calls a model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hqsam_base.atomic import atomic_file
from hqsam_pipelines.config import dvc_site, env

FOLDER = Path(env.STATE_DIR) / "profiles"
LOCK = "dvc.lock"


def keep(root: Path, profile: str) -> None:
    """Copy what the active profile's run left, in place of an earlier copy."""
    shutil.rmtree(root / FOLDER / profile, ignore_errors=True)
    if not (root / LOCK).is_file() or not (root / ".dvc").is_dir():
        return
    env.make_state_dir(root)
    with dvc_site.open_repo(root) as repo:
        outs = [Path(out.fs_path) for out in repo.index.outs if not out.use_cache and out.exists]
    for path in (*outs, root / LOCK):
        target = root / FOLDER / profile / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copy2(path, target)


def bring_back(root: Path, profile: str) -> None:
    """Put back what `keep` copied for a profile; without a copy everything stays as it is."""
    kept = root / FOLDER / profile
    if not (kept / LOCK).is_file():
        return
    for path in sorted(path for path in kept.rglob("*") if path.is_file()):
        with atomic_file(root / path.relative_to(kept)) as file:
            file.write(path.read_bytes())


def differs(out: Any) -> bool:
    """Whether an output of DVC's is there, with another content than dvc.lock says."""
    return bool(out.exists and out.changed_checksum())
