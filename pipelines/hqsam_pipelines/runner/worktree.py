"""A worktree of the checkout at a revision, for what a worker runs beside the people who work in the checkout."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hqsam_base.atomic import write_bytes
from hqsam_base.errors import UserError
from hqsam_base.locks import FileLock
from hqsam_base.safe_text import shown
from hqsam_base.terminal import say
from hqsam_pipelines.config import dvc_site, env
from hqsam_pipelines.runner import dvc_locks, shown_run

DVC = (sys.executable, "-m", "dvc")
_SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD", "AUTH_STRING", "ACCESS_KEY", "WEBHOOK_URL")


def place(root: Path, name: str) -> Path:
    """Where the worktree of this name lies; it stays for the next run."""
    return root / env.STATE_DIR / "worktrees" / name


@contextlib.contextmanager
def at(root: Path, name: str, revision: str) -> Iterator[tuple[Path, str]]:
    """Give the worktree and the revision's commit; nobody else works in this worktree meanwhile.

    New commits of `origin` are fetched before. The worktree holds what DVC's cache has of that commit's
    outputs, and shares the cache and the remotes with the checkout.

    Args:
        root: The checkout.
        name: What the worktree is for.
        revision: A commit, branch or tag.

    Raises:
        UserError: an unknown revision, or another run did not end in time.
    """
    lock = FileLock(env.make_state_dir(root) / f"{name}.lock")
    dvc_locks.wait(
        lambda: lock.acquire(0), lambda: f"another run of `{name}`", root / env.STATE_DIR
    )
    try:
        if "origin" in git(root, "remote").split() and call(root, ["git", "fetch", "origin"])[0]:
            say("`git fetch origin` failed: the run takes what was fetched before", err=True)
        commit = git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        tree = place(root, name)
        if not (tree / ".git").exists():
            git(root, "worktree", "prune")
            git(root, "worktree", "add", "--force", "--detach", str(tree), commit)
        git(tree, "checkout", "--quiet", "--force", "--detach", commit)
        _configure_dvc(root, tree)
        call(tree, [*DVC, "checkout", "--force", "--allow-missing"])
        yield tree, commit
    finally:
        lock.release()


def _configure_dvc(root: Path, tree: Path) -> None:
    """Share the cache and the remotes of the checkout's own configuration (`.dvc/config.local`)."""
    from configobj import ConfigObj

    with dvc_site.open_repo(root) as repo:
        cache = repo.cache.local.path
    local = root / ".dvc" / "config.local"
    config = ConfigObj(str(local)) if local.is_file() else ConfigObj()
    for section in config.sections:
        url = str(config[section].get("url", ""))
        if url.startswith("."):  # DVC writes local remotes relative to the file
            config[section]["url"] = str((root / ".dvc" / url).resolve())
    config.setdefault("core", {}).pop("site_cache_dir", None)  # each checkout has its own
    config.setdefault("cache", {})["dir"] = str(Path(cache).resolve())
    config.filename = None
    write_bytes(tree / ".dvc" / "config.local", "\n".join([*config.write(), ""]).encode())
    dvc_site.configure(tree)


def masked(text: str) -> str:
    """Text without the secrets of this process's environment."""
    values = [v for k, v in os.environ.items() if any(word in k.upper() for word in _SECRET_WORDS)]
    for value in sorted((value for value in values if len(value) >= 6), key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def git(folder: Path, *words: str) -> str:
    """What a git command prints.

    Raises:
        UserError: it fails.
    """
    status, output = call(folder, ["git", *words])
    if status:
        raise UserError(f"`git {words[0]}` failed", details=output[-5:], file=folder)
    return "\n".join(output).strip()


def call(folder: Path, words: list[str], *, said: bool = False) -> tuple[int, list[str]]:
    """Run a command in a folder; its exit status and lines, secrets masked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    kept.update(shown_run.environment())
    lines: list[str] = []
    with subprocess.Popen(
        words,
        cwd=folder,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(masked(shown(line.rstrip())))
            if said and line.strip():
                say(lines[-1])
    return process.returncode, lines
