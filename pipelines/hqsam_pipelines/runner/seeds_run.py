"""Runs the profile that `hqsam_pipelines.seeds` composes, and puts the user's own back afterwards."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hqsam_base.atomic import write_bytes
from hqsam_base.errors import UserError
from hqsam_base.terminal import say
from hqsam_pipelines import seeds
from hqsam_pipelines.config import env, profiles
from hqsam_pipelines.config.params import FILE, Params
from hqsam_pipelines.runner import repro

SAVED = Path(env.STATE_DIR) / "params-before-seeds.yaml"
"""The user's params.yaml as long as another one is in its place."""


def run(root: Path, n: int, *, workers: int = 2, force: bool = False) -> repro.Outcome:
    """Trains and scores the active profile with `n` seeds; keeps the scores if all of it worked.

    Args:
        root: the repository.
        n: seeds a model, from 2 on; the profile's own is the first.
        workers: stages at the same time.
        force: train and score even what is up to date.

    Raises:
        UserError: see `seeds.compose` and `repro.run`.
    """
    env.prepare()
    # One block: a run that waits for this one must not begin with the composed params.yaml.
    with repro.queued(root, ["seeds"]):
        if (root / SAVED).is_file():  # an earlier run was killed
            _put_back(root)
        params = Params.load(root / FILE)
        content = seeds.compose(params, n)
        write_bytes(root / SAVED, (root / FILE).read_bytes())
        try:
            write_bytes(root / FILE, content)
            for line in profiles.restore(root):  # outputs of its models that an earlier run left
                say(line, err=True)
            outcome = repro.alone(root, ["score"], workers=workers, force=force)
            if not outcome.failed:
                seeds.keep(root, params, n)
        finally:
            _put_back(root)
        return outcome


def _put_back(root: Path) -> None:
    """Puts the user's params.yaml back; the outputs of further seeds go to DVC's cache and aside.

    A params.yaml that is not ours any more is the user's newest: it stays.
    """
    if (root / FILE).read_bytes().startswith(f"# {seeds.COMMENT}\n".encode()):
        write_bytes(root / FILE, (root / SAVED).read_bytes())
    else:
        say(f"{FILE} was changed meanwhile: it stays as it is", err=True)
    (root / SAVED).unlink()
    # An edited file that cannot be read must not hide why the run ended; the next run says it.
    with contextlib.suppress(UserError):
        for _ in profiles.prune(root):
            pass
