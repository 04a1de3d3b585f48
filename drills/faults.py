"""The kinds of fault: which process dies, found the way that the processes find each other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from drills.checkout import processes
from hqsam_base.locks import is_held
from hqsam_pipelines.runner import server

Victim = Callable[[Path, int], psutil.Process | None]
"""From a checkout and the process of its run: the process to kill, None while there is none."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        wanted: How often it is to be injected.
        says: What happens, for the table.
        victim: Finds the process that gets SIGKILL; None: see `second_run`, or not built yet.
        second_run: Start a second `hqsam repro` in the same checkout instead of killing.
        warm: Start the server before the run.
    """

    wanted: int
    says: str
    victim: Victim | None = None
    second_run: bool = False
    warm: bool = False

    @property
    def built(self) -> bool:
        """Whether this kind can be injected."""
        return self.victim is not None or self.second_run


def _dvc(root: Path, run: int) -> psutil.Process | None:
    """The DVC run that holds a lock on what its stage writes."""
    locks = json.loads((root / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8"))
    return next((psutil.Process(lock["pid"]) for lock in locks.get("write", {}).values()), None)


def _stage(root: Path, run: int) -> psutil.Process | None:
    return _named(root, "hqsam_pipelines.stages.")


def _host(root: Path, run: int) -> psutil.Process | None:
    return _named(root, "hqsam_pipelines.runner.host")  # the oldest: its forks have its name


def _fork(root: Path, run: int) -> psutil.Process | None:
    host = _host(root, run)
    return next(iter(host.children()), None) if host else None


def _run(root: Path, run: int) -> psutil.Process | None:
    return psutil.Process(run)


def _server(root: Path, run: int) -> psutil.Process | None:
    return _holder(root) if server.status(root) is not None else None


def _starting_server(root: Path, run: int) -> psutil.Process | None:
    return _holder(root) if server.status(root) is None else None


def _holder(root: Path) -> psutil.Process | None:
    if not is_held(server.lock_path(root)):
        return None
    pid = server.lock_path(root).read_text()
    return psutil.Process(int(pid)) if pid else None


def _named(root: Path, word: str) -> psutil.Process | None:
    for process in processes(root):
        with contextlib.suppress(psutil.Error):
            if any(part.startswith(word) for part in process.cmdline()):
                return process
    return None


KINDS = {
    "dvc": Kind(20, "kill -9 of the DVC run of a stage", _dvc),
    "stage": Kind(20, "kill -9 of the stage's own process", _stage),
    "host": Kind(20, "kill -9 of the stage host", _host),
    "server-warm": Kind(20, "kill -9 of a server that answers", _server, warm=True),
    "server-starting": Kind(20, "kill -9 of a server that does not answer yet", _starting_server),
    "fork": Kind(20, "kill -9 of the host's fork that does a stage's work", _fork),
    "run": Kind(20, "kill -9 of `hqsam repro` itself", _run),
    "two-schedulers": Kind(10, "a second `hqsam repro` beside the first", second_run=True),
    "score-worker": Kind(20, "kill -9 of a worker of `score`"),
    "predict-worker": Kind(20, "kill -9 of a worker of `predict`"),
    "torchrun-rank": Kind(20, "kill -9 of one rank of a training"),
    "server-away": Kind(10, "the server is away when a stage begins, and for 60 s in mid-run"),
    "dvc-lock": Kind(10, "kill -9 of DVC while it writes dvc.lock"),
    "disk-full": Kind(10, "the disk of data, of the cache or of the state folder is full"),
    "worker-and-flow": Kind(10, "kill -9 of a Prefect worker and its flow"),
    "ray-node": Kind(10, "kill -9 of a node of Ray"),
    "s3-cut": Kind(10, "the connection to S3 is cut"),
    "report": Kind(10, "kill -9 while the report is written"),
    "clock-jump": Kind(10, "the clock jumps"),
}
"""Every kind that is wanted; those without a victim are in the table with none injected."""
