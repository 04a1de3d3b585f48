"""The checkout that is disturbed: a clone on the profile `tiny` whose evaluation of COCO is to be done anew."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import psutil
import yaml

from hqsam_pipelines.runner import host_client, server
from tests.pipelines.working_copy import clone, environment, run, wait_until

TARGET = "score@coco-nano"
AGAIN = ("fetch@coco", "index@coco", "predict@coco-nano", "score@coco-nano")
"""The stages of each run: everything else is up to date."""
MARK = "DRILL"
"""A variable of the environment that every process of a drill inherits, so that those left behind are found."""


def prepare(folder: Path) -> tuple[Path, dict[str, str]]:
    """Run the pipeline once, undisturbed.

    Returns:
        A checkout in which the stages of `AGAIN` are to be run again, and the digests of what the
        undisturbed run wrote.

    Raises:
        RuntimeError: the undisturbed run failed.
    """
    base = clone(folder / "base")
    done = run(base, "hqsam", "repro", TARGET, timeout=600)
    stop(base)
    if done.returncode:
        raise RuntimeError(f"the undisturbed run failed:\n{done.stdout}{done.stderr}")
    expected = digests(base)
    lock = yaml.safe_load((base / "dvc.lock").read_text(encoding="utf-8"))
    for stage in AGAIN:
        for out in lock["stages"].pop(stage)["outs"]:
            path = base / out["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (base / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")
    shutil.rmtree(base / ".dvc" / "cache" / "runs", ignore_errors=True)
    return base, expected


def begin(root: Path, temporary: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `hqsam repro` as a user would, with a folder of its own for temporary files."""
    marked = {MARK: str(root), "TMPDIR": str(temporary)}
    with log.open("ab") as out:
        return subprocess.Popen(
            ["hqsam", "repro", TARGET],
            cwd=root,
            env=environment(root, **marked),
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def processes(root: Path) -> list[psutil.Process]:
    """The living processes of a checkout's drill, the oldest first."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(root) and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of each file of data/, models/ and reports/metrics/ by its path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("data", "models", "reports/metrics")
        for folder, _, files in os.walk(root / name)
        for path in (Path(folder) / file for file in files)
    }


def stop(root: Path) -> None:
    """End the checkout's stage host and server and wait until all its processes are gone, 15 s at most."""
    host_client.stop(root)
    server.stop(root)
    wait_until(lambda: not processes(root), 15)
