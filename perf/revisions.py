"""What a benchmark needs to compare this checkout with another revision: its code, and what a program costs in each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FOLDERS = (".", "datasets", "metrics", "pipelines")
BEFORE = "d6c990e"
"""The revision that speed is compared with: the build before compiled kernels."""


@dataclass(frozen=True)
class Cost:
    """What a process took: processor seconds, its children's included; wall seconds; and what it printed."""

    processor: float
    wall: float
    output: str


def revision() -> str:
    """The commit of this checkout, `+` behind it where other files than the record differ from it."""

    def git(*words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    written = (":!perf/measured.json", ":!docs/benchmarks.md")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return git("rev-parse", "--short=8", "HEAD") + ("+" if changed else "")


@contextlib.contextmanager
def checkout(revision: str = BEFORE) -> Iterator[Path]:
    """Checks a revision out into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        clone = ["git", "clone", "--quiet", "--shared", str(ROOT), str(other)]
        subprocess.run(clone, check=True)
        subprocess.run(["git", "checkout", "--quiet", revision], cwd=other, check=True)
        yield other


def cost(root: Path, words: Sequence[str], **environment: str) -> Cost:
    """Runs `python WORDS` with the code of a checkout, with one compute thread.

    Raises:
        RuntimeError: it fails.
    """
    paths = os.pathsep.join(str(root / folder) for folder in PACKAGE_FOLDERS)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    begin = os.times().elapsed
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, *words],
            stdout=out,
            env=os.environ | threads | {"PYTHONPATH": paths} | environment,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise RuntimeError(f"{words}: exit status {process.returncode}")
    wall = os.times().elapsed - begin
    return Cost(used.ru_utime + used.ru_stime, wall, text)
