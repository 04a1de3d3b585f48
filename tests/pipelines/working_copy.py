"""Helpers of the pipeline tests: a working copy of this repository to run real commands in."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hqsam_pipelines.runner import host_client, server
from tests import REPOSITORY

PACKAGE_FOLDERS = (".", "datasets", "metrics", "pipelines")
PACKAGES = ("hqsam", "datasets", "metrics", "pipelines")


def environment(root: Path, **extra: str) -> dict[str, str]:
    """The environment of a user with the virtual environment active whose checkout is `root`."""
    dropped = ("PREFECT_", "HQSAM_", "DVC_", "COVERAGE_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    # The copy's own code must come first, and where it has none, that of the checkout under test,
    # wherever the installed one lies.
    places = [place / folder for place in (root, REPOSITORY) for folder in PACKAGE_FOLDERS]
    kept["PYTHONPATH"] = os.pathsep.join(str(place) for place in places)
    return {**kept, "HQSAM_SERVER_IDLE_MINUTES": "2", **extra}


def run(
    root: Path, *words: str, timeout: float = 240, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in `root`; output is text, nothing is raised for its exit status."""
    command = [sys.executable, *words[1:]] if words[0] == "python" else list(words)
    return subprocess.run(
        command,
        cwd=root,
        env=environment(root, **extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def on_server(root: Path, call: str, shown: str) -> Any:
    """What a call of Prefect's client gives on the server of a checkout: a list of `shown`, an expression in `r`."""
    # Here: it takes seconds to import it anew.
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    place = server.status(root)
    assert place is not None
    given = {
        PREFECT_API_URL: place.api,
        PREFECT_API_AUTH_STRING: server.auth_path(root).read_text(),
    }
    with temporary_settings(given), get_client(sync_client=True) as client:
        found = eval(f"client.{call}", {"client": client})
        return json.loads(json.dumps([eval(shown, {"r": r}) for r in found], default=str))


def git(root: Path, *words: str) -> str:
    identity = [
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.org",
        "-c",
        "init.defaultBranch=main",
    ]
    return subprocess.run(
        ["git", *identity, *words], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


def clone(target: Path, profile: str = "tiny") -> Path:
    """A git repository with this checkout's files as they are now (committed or not), on the given profile."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        source = REPOSITORY / name
        if source.is_file() and not name.startswith(("tests/", "reports/", "dvc.lock")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    copy_bytecode(target)
    shutil.copy2(REPOSITORY / "configs" / f"{profile}.yaml", target / "params.yaml")
    git(target, "init", "-q")
    git(target, "add", "-A")
    git(target, "commit", "-qm", "start")
    return target


def copy_bytecode(target: Path) -> None:
    """Give a copy what Python compiled here: it holds for files of the same time and size, and takes seconds to make."""
    for package in PACKAGES:
        for cache in (REPOSITORY / package).rglob("__pycache__"):
            if (target / cache.parent.relative_to(REPOSITORY)).is_dir():
                shutil.copytree(cache, target / cache.relative_to(REPOSITORY), dirs_exist_ok=True)


def bare_repository(root: Path) -> Path:
    """The least that `env.repository_root` takes for a repository."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text("profile: none\n")
    return root


# The stage that does not end by itself; `exec` makes the noted process the one that sleeps.
LONG_STAGE = "stages:\n  long:\n    cmd: echo $$ > pid && exec sleep 300\n    outs: [never]\n"


def dvc_repository(root: Path, stages: str, database: Path) -> Path:
    """A repository of this project with a DVC pipeline of shell commands, and a server's home."""
    root.mkdir(exist_ok=True)
    (root / "dvc.yaml").write_text(stages)
    (root / "params.yaml").write_bytes((REPOSITORY / "configs" / "tiny.yaml").read_bytes())
    for package in PACKAGES:  # what makes it a repository of this project
        (root / package).symlink_to(REPOSITORY / package)
    (root / ".gitignore").write_text(".hqsam/\n")
    shutil.copytree(database, server.home(root))
    git(root, "init", "-q")
    assert run(root, "dvc", "init", "-q").returncode == 0
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")
    return root


def interrupt_long_stage(root: Path, **extra: str) -> None:
    """Start `hqsam repro` on `LONG_STAGE`, interrupt it as Ctrl-C does, and see that the stage's process ends with it."""
    words = [sys.executable, "-m", "hqsam_pipelines.cli", "repro"]
    pipe, kept = subprocess.PIPE, environment(REPOSITORY, **extra)
    # A shell starts its background jobs with SIGINT ignored, and whatever runs in them inherits
    # that.
    process = subprocess.Popen(
        words,
        cwd=root,
        env=kept,
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert wait_until(lambda: (root / "pid").exists() and (root / "pid").read_text() != "", 90)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        out, _ = process.communicate(timeout=60)
        assert process.returncode != 0 and "stopping; " in out
        # On a quiet machine a second; the stage would sleep for five minutes.
        assert time.monotonic() - begin < 30, f"{time.monotonic() - begin:.1f} s, {out}"
        pid = int((root / "pid").read_text())
        assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30), out
    finally:
        process.kill()
        host_client.stop(root)
        server.stop(root)


NOBODY = 65534

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can be another user for a moment"
)


def as_another_user(work: Callable[[], str]) -> str:
    """What `work` returns in a child that has become the user `nobody`; an exception's text if it raises."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            told = work()
        except BaseException as error:
            told = repr(error)
        os.write(theirs, told.encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, encoding="utf-8") as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return told


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not true():
        time.sleep(0.1)
    return true()
