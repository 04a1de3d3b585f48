"""Whose numbers these are: the commit that is checked out, the state of its code, and the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

# Reports and the lock change in every run; they say nothing about the code that ran.
_CODE = (".", ":!reports", ":!dvc.lock")


def code_commit(root: Path) -> tuple[str, str] | None:
    """The commit that last changed anything but reports, and its date: the same before and after a report is committed."""
    found = _git(root, "log", "-1", "--format=%H %cI", "--", *_CODE)
    commit, _, date = (found or "").partition(" ")
    return (commit, date) if commit else None


def head(root: Path) -> str | None:
    """The commit that is checked out; None outside a git repository."""
    return _git(root, "rev-parse", "HEAD") or None


def git_state(root: Path) -> dict[str, Any]:
    """The commit that is checked out, its date, and whether tracked code differs; nulls outside a git repository."""
    changed = _git(root, "status", "--porcelain", "-uno", "--", *_CODE)
    return {
        "commit": head(root),
        "date": _git(root, "show", "--no-patch", "--format=%cI", "HEAD") or None,
        "code_changed": None if changed is None else bool(changed),
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def host() -> dict[str, Any]:
    """The machine, without its name or address: what its numbers' last bits can depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "gpu": ", ".join(
            _field(path, "Model")
            for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        ),
        "threads": os.environ.get("OMP_NUM_THREADS") or str(cores),
    }


def _field(path: Path, name: str) -> str:
    """The value of the first line ``name: value`` of a file of the kernel; empty if there is none."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""
