"""What every entry point looks at before anything runs or starts: whose pipeline this is, params.yaml, and what it names."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from hqsam_base import own_code
from hqsam_base.atomic import atomic_file
from hqsam_base.errors import UserError
from hqsam_pipelines.config import env, inputs
from hqsam_pipelines.config.params import FILE, Params

NOTE = Path(env.STATE_DIR) / "params.checked"
"""The digest of what passed last: params.yaml, and sizes and times of the files that it names."""


def load(root: Path, *, anew: bool = True) -> Params:
    """Read params.yaml and check every section of it, and the files that it names, not only what the caller is going to read.

    Args:
        root: The repository.
        anew: Check even what passed before. False is for the stages of a run, whose first one
            checked it: building all sections takes 0.2 s of processor time, and there are fifty.

    Raises:
        UserError: the first mistake.
    """
    params = Params.load(root / FILE)
    found = inputs.files(params, root)
    seen = (root / FILE).read_bytes() + inputs.signature(found).encode()
    digest = hashlib.sha256(seen).hexdigest()
    noted = None
    with contextlib.suppress(OSError, ValueError):
        noted = (root / NOTE).read_text()
    if anew or noted != digest:
        given = dict(os.environ)
        params.check()
        inputs.check(params, root)
        # OpenCV, imported on the way, puts its folder into LD_LIBRARY_PATH, also for the processes
        # that are started from here; the stage host would take these for another environment's.
        os.environ.clear()
        os.environ.update(given)
        # Without a note, as on a full disk, the next one checks again.
        with contextlib.suppress(OSError, UserError):
            env.make_state_dir(root)
            with atomic_file(root / NOTE) as file:
                file.write(digest.encode())
    return params


def pipeline(root: Path) -> Params:
    """`load`, for who is about to have DVC run the commands of the repository's dvc.yaml.

    Raises:
        UserError: the repository is none of this project's, so that its commands would be
            somebody's; or a mistake in params.yaml.
    """
    if "hqsam_pipelines" not in own_code.packages(root):
        raise UserError(
            "this repository is not one of HQ-SAM: the commands of its dvc.yaml are not run",
            file=root / "dvc.yaml",
            cure="run this in a clone of HQ-SAM; `dvc repro` runs any other pipeline",
        )
    params = load(root)
    # Here, too: DVC stops at a link whose file is gone before any stage could mend it.
    inputs.link(inputs.files(params, root), root)
    return params
