"""Helpers of the pipeline tests: a working copy of this repository to run real commands in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE_FOLDERS = (".", "datasets", "metrics", "pipelines")


def environment(root: Path, **extra: str) -> dict[str, str]:
    """The environment of a user with the virtual environment active whose checkout is `root`."""
    dropped = ("PREFECT_", "HQSAM_", "DVC_", "COVERAGE_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    # The installed package points to the checkout under test; the copy's own code must come first.
    kept["PYTHONPATH"] = os.pathsep.join(str(root / folder) for folder in PACKAGE_FOLDERS)
    return {**kept, "HQSAM_SERVER_IDLE_MINUTES": "2", **extra}


def run(root: Path, *words: str, timeout: float = 240, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `root`; output is text, nothing is raised for its exit status."""
    command = [sys.executable, *words[1:]] if words[0] == "python" else list(words)
    return subprocess.run(
        command, cwd=root, env=environment(root, **extra), capture_output=True, text=True, timeout=timeout, check=False
    )


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
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
    shutil.copy2(REPOSITORY / "configs" / f"{profile}.yaml", target / "params.yaml")
    git(target, "init", "-q")
    git(target, "add", "-A")
    git(target, "commit", "-qm", "start")
    return target


def bare_repository(root: Path) -> Path:
    """The least that `env.repository_root` takes for a repository."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text("profile: none\n")
    return root
