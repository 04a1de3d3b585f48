"""The DVC runs of one walk as forks of one process that has read the pipeline.

A DVC process for a stage spends most of its time on imports, and on reading dvc.yaml, dvc.lock and
params.yaml. So `hqsam repro`, which reads them anyway, leaves a fork of itself behind at that
point, while it has one thread, and that one forks again for each stage: a `host.Host` whose work is
one `dvc repro --single-item`. Each DVC run is a process in a group of its own, as it is without
this. Where there is no such process (no longer, or in a deployed flow, which has threads before it
knows the checkout), `dvc_run` takes its place.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from hqsam_base.processes import end_with_parent, send_signal
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import dvc_lock_text, host, host_client

MODULE = "hqsam_pipelines.runner.dvc_run"
"""How the command of each of our DVC runs begins in DVC's list of locks."""
START_S = 30.0
"""How long a fork may take to begin on a busy machine, before a DVC of its own is started in its place."""


class Forks:
    """The process that forks.

    Args:
        root: The repository.
        name: Its socket in the checkout's state folder.
        pid: The process.
    """

    def __init__(self, root: Path, name: str, pid: int) -> None:
        self._root = root
        self._name = name
        self._pid = pid

    def begin(self, argv: list[str], environ: Mapping[str, str]) -> Fork | None:
        """Begin `dvc <argv>` with this environment; None if the process has gone or is busy."""
        link = host_client.connect(self._root, self._name)
        if link is None:
            return None
        link.settimeout(START_S)
        read, write = os.pipe()
        quiet = os.open(os.devnull, os.O_RDONLY)
        try:
            answer = host_client.offer(
                link, MODULE, argv, streams=(quiet, write, write), environ=environ
            )
            if answer == host_client.READY:
                link.send(host_client.GO)
                answer = link.recv(64)
        except OSError:
            answer = b""
        finally:
            os.close(quiet)
            os.close(write)
        if answer.startswith(b"pid "):
            return Fork(link, int(answer[4:]), argv, read)
        os.close(read)
        link.close()
        return None

    def end(self) -> None:
        """End it; its forks get SIGTERM."""
        (env.state_dir(self._root) / self._name).unlink(missing_ok=True)
        send_signal(self._pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


class Fork:
    """One DVC run; what `subprocess.Popen` offers of its end and its output.

    Args:
        link: The connection to the process that forked it, which says how it ends.
        pid: Its process and group.
        args: DVC's arguments.
        output: The end of its output's pipe.
    """

    def __init__(self, link: socket.socket, pid: int, args: list[str], output: int) -> None:
        self.pid = pid
        self.args = args
        self.stdout = TextIOWrapper(os.fdopen(output, "rb"), errors="replace")
        self._link = link
        self._status: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative for a signal; that of SIGKILL if the process that forked it died, which ends it, too.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        with self._lock:
            if self._status is None:
                self._link.settimeout(timeout)
                try:
                    answer = self._link.recv(64)
                except (BlockingIOError, TimeoutError) as error:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from error
                except OSError:
                    answer = b""
                self._link.close()
                self.stdout.close()
                known = answer.startswith(b"exit ")
                self._status = int(answer[5:]) if known else -signal.SIGKILL
            return self._status


_started: dict[Path, Forks] = {}
"""By repository; never in the processes of a Ray cluster."""


@contextlib.contextmanager
def started(root: Path, repo: Any, stages: Mapping[str, Any]) -> Iterator[None]:
    """Have `begin` fork DVC runs for the block, see `start`."""
    forks = start(root, repo, stages)
    if forks is not None:
        _started[root] = forks
    try:
        yield
    finally:
        if forks is not None:
            del _started[root]
            forks.end()


def begin(root: Path, argv: list[str], environ: Mapping[str, str]) -> Fork | None:
    """Begin `dvc <argv>` with this environment; None where there is no process for it (any more)."""
    forks = _started.get(root)
    return forks.begin(argv, environ) if forks is not None else None


def start(root: Path, repo: Any, stages: Mapping[str, Any]) -> Forks | None:
    """Leave a fork of this process behind that can run the stages.

    Args:
        root: The repository.
        repo: DVC's, which has read the pipeline.
        stages: Name to DVC's stage.

    Returns:
        None where forking is not safe (this process has other threads) or `HQSAM_HOST` forbids it.
    """
    if not host_client.enabled() or threading.active_count() > 1:
        return None
    repo.close()  # its data bases, which are opened again where they are needed
    sys.stdout.flush()
    sys.stderr.flush()
    name = f"dvc-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        (env.state_dir(root) / name).unlink(missing_ok=True)
        with host_client.short_path(root, name) as path:
            door.bind(path)
        (env.state_dir(root) / name).chmod(0o600)
        door.listen(64)
        pid = os.fork()
        if pid == 0:
            _serve(root, door, repo, stages)
    return Forks(root, name, pid)


def _serve(root: Path, door: socket.socket, repo: Any, stages: Mapping[str, Any]) -> NoReturn:
    """Be the process that forks, until the one that started it ends."""
    try:
        os.setsid()  # Ctrl-C is for the one that started it
        end_with_parent()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        with (env.state_dir(root) / "host.log").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        for fd in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
            if fd > 2 and fd != door.fileno():  # the lock of the run above all
                with contextlib.suppress(OSError):
                    os.close(fd)

        def work(request: dict[str, Any]) -> int:
            return _run(repo, stages, request)

        select.select([door], [], [])  # where nothing is to be done, nobody comes
        from dvc.cli.parser import get_main_parser

        get_main_parser()  # DVC keeps it
        host.Host(root, door, work, libraries=(), idle_s=math.inf).serve()
    finally:
        os._exit(0)


def _run(repo: Any, stages: Mapping[str, Any], request: Mapping[str, Any]) -> int:
    """`dvc repro` by DVC's own command line, with what was read already in the place of what it would read."""
    from dvc import logger
    from dvc.cli import command, main
    from dvc.lock import make_lock
    from dvc.repo import reproduce

    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = [MODULE, *request["argv"]]
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, closefd=False) for fd in (1, 2))  # noqa: SIM115
    for name in ("dvc", "dvc_objects", "dvc_data"):
        logging.getLogger(name).handlers.clear()
    logger.setup()
    repo.lock = make_lock(
        str(Path(repo.tmp_dir) / "lock"),
        tmp_dir=repo.tmp_dir,
        friendly=True,
        hardlink_lock=repo.config["core"].get("hardlink_lock", False),
        wait=True,
    )

    def take(self: Any, args: Any) -> None:
        self.repo, self.config, self.args = repo, repo.config, args

    command.CmdBase.__init__ = take
    reproduce.collect_stages = lambda _, names, **__: [stages[name] for name in names]
    dvc_lock_text.install()
    return int(main(request["argv"]) or 0)
