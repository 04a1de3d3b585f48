"""The stage host: `python -m hqsam_pipelines.runner.host ROOT`. What it is for and the protocol: see `host_client`.

One process with one thread. It imports libraries (never the project's modules), waits for requests
and forks: a fork of a process without threads is safe, and the child starts with the imports done.
It ends when nobody has asked for a while, when the repository has gone, and when a client comes
with another interpreter, other libraries or another environment.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from hqsam_base import own_code
from hqsam_base.locks import FileLock
from hqsam_base.processes import end_with_parent, send_signal
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import host_client

IDLE_S = 60.0
TICK_S = 0.5
KILL_AFTER_S = 15.0

LIBRARIES = (
    "numpy",
    "prefect.main",
    "prefect.flows",
    "prefect.tasks",
    "prefect.artifacts",
    "prefect.events.worker",
    "prefect.logging.handlers",
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "anyio._backends._asyncio",
    "fastapi",
    "rich.progress",
    "ruamel.yaml",
    "httpx",
    "cv2",
    "PIL.Image",
    "pycocotools.mask",
    "pandas",
    "pyarrow.parquet",
    "dvc.repo.reproduce",
    "dvc.commands.repro",
    "dvc.cli.parser",
    "dvc.cachemgr",
    "dvc.data_cloud",
    "dvc.lock",
    "dvc.rwlock",
    "dvc.scm",
    "dvc.repo.artifacts",
    "dvc.repo.datasets",
    "dvc.repo.metrics",
    "dvc.repo.params",
    "dvc.repo.plots",
    "dvc.repo.stage",
    "dvc.utils.strictyaml",
    "dvc_data.hashfile.db.local",
    "dvc_data.hashfile.status",
    "dulwich.ignore",
    "dulwich.index",
    "dulwich.worktree",
    "torch",
)
"""Imported one by one while nobody waits, the most wanted first."""


_SIGNALS = {b"signal %d" % number: number for number in host_client.FORWARDED}


@dataclass
class Run:
    """One run: its client's connection, and the child once it was forked.

    `ends` holds a descriptor that becomes readable when the child has ended; it is empty on an old
    kernel, where the next tick finds out.
    """

    link: socket.socket
    request: dict[str, Any]
    streams: list[int]
    pid: int | None = None
    ends: list[int] = field(default_factory=list)
    kill_at: float | None = None


class Host:
    """The event loop.

    Args:
        root: The repository.
        door: The listening socket.
        work: Does the work of a request in the fork for it, and returns the exit status.
        libraries: Modules to import while nobody waits.
        idle_s: Seconds without a request after which it ends.
    """

    def __init__(
        self,
        root: Path,
        door: socket.socket,
        work: Callable[[dict[str, Any]], int] | None = None,
        libraries: Sequence[str] = LIBRARIES,
        idle_s: float = IDLE_S,
    ) -> None:
        self._root = root
        self._door = door
        self._fingerprint = host_client.fingerprint()
        self._waiting: list[socket.socket] = []
        self._runs: list[Run] = []
        self._work = work or _work
        self._libraries = list(libraries)
        self._idle_s = idle_s
        self._closing = False
        self._last_used = time.monotonic()

    def serve(self) -> None:
        """Serve until it is time to end and the last run is over."""
        while not (self._closing and not self._runs):
            idle_step = 0.0 if self._libraries and not self._closing else TICK_S
            doors = [] if self._closing else [self._door]
            links: list[Any] = [*doors, *self._waiting, *(run.link for run in self._runs)]
            ends = [fd for run in self._runs for fd in run.ends]
            ready, _, _ = select.select(links + ends, [], [], idle_step)
            for link in ready:
                if isinstance(link, socket.socket):
                    self._hear(link)
            self._reap()
            if ready:
                continue
            if self._runs or self._waiting:
                self._last_used = time.monotonic()
            idle = time.monotonic() - self._last_used > self._idle_s
            if idle or not (self._root / "dvc.yaml").exists():
                self._close_door("idle")
            elif self._libraries:
                # One that is not installed is only slower to fail later, in the stage that wants it.
                with contextlib.suppress(Exception):
                    importlib.import_module(self._libraries.pop(0))

    def _hear(self, link: socket.socket) -> None:
        if link is self._door:
            with contextlib.suppress(OSError):
                found = self._door.accept()[0]
                uid = host_client.peer(found)[1]
                if uid == os.geteuid():  # a run has all of this user's rights
                    self._waiting.append(found)
                else:
                    clock = time.strftime("%H:%M:%S")
                    print(f"{clock} refused a connection of user {uid}", flush=True)
                    found.close()
        elif link in self._waiting:
            self._waiting.remove(link)
            self._greet(link)
        else:
            for run in [run for run in self._runs if run.link is link]:
                self._attend(run)

    def _greet(self, link: socket.socket) -> None:
        """The first packet of a connection."""
        try:
            found = host_client.receive_request(link)
        except OSError:
            found = None
        if found is None:
            link.close()
            return
        word, request, streams = found
        if (
            word == host_client.QUIT
            or self._closing
            or request.get("fingerprint") != self._fingerprint
        ):
            self._close_door("asked to" if word == host_client.QUIT else self._difference(request))
            _close(streams)
            with link, contextlib.suppress(OSError):
                link.send(host_client.OTHER)
            return
        with contextlib.suppress(OSError):
            link.send(host_client.READY)
        self._runs.append(Run(link, request, streams))

    def _difference(self, request: dict[str, Any]) -> str:
        try:
            mine, theirs = (json.loads(t) for t in (self._fingerprint, request["fingerprint"]))
            pairs = [pair for pair in zip(mine, theirs, strict=False) if pair[0] != pair[1]]
        except (ValueError, TypeError, RecursionError):
            pairs = []  # of a client of another version
        return f"a client with another environment came: {pairs}"

    def _attend(self, run: Run) -> None:
        """A further packet of a client, or the end of its connection."""
        try:
            word = run.link.recv(64)
        except OSError:
            word = b""
        if word == host_client.GO and run.pid is None:
            self._fork(run)
        elif word in _SIGNALS and run.pid is not None:
            send_signal(run.pid, _SIGNALS[word], group=True)
        elif not word and run.pid is None:
            self._forget(run)
        elif not word and run.pid is not None and run.kill_at is None:
            send_signal(run.pid, signal.SIGTERM, group=True)
            run.kill_at = time.monotonic() + KILL_AFTER_S
            run.link.close()
            # a connection that never becomes readable, in place of the client's
            run.link, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            _KEPT.append(other_end)

    def _fork(self, run: Run) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # What was imported stays: a child's collector would walk all of it, half a second and a
        # copy of every page.
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            self._child(run)
        run.pid = pid
        with contextlib.suppress(OSError):  # an old kernel has no such descriptors
            run.ends = [os.pidfd_open(pid)]
        with contextlib.suppress(OSError):
            run.link.send(b"pid %d" % pid)
        _close(run.streams)
        run.streams = []

    def _child(self, run: Run) -> NoReturn:
        """Turn the fork into the caller's process (streams, group, signals), do its work, and end."""
        status = 1
        try:
            os.setpgid(0, 0)
            end_with_parent()
            # Not SIGPIPE, which Python ignores: a connection that the other side closes is an
            # exception.
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for target, stream in enumerate(run.streams):
                os.dup2(stream, target)
            _close(run.streams)
            self._door.close()
            for other in [*self._waiting, *(r.link for r in self._runs)]:
                other.close()
            _close([fd for r in self._runs if r is not run for fd in (*r.streams, *r.ends)])
            status = self._work(run.request)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            traceback.print_exc()
        finally:
            _end(status)

    def _reap(self) -> None:
        """Report the runs that have ended; end for good those whose client has left."""
        for run in [run for run in self._runs if run.pid is not None]:
            assert run.pid is not None
            pid, status = os.waitpid(run.pid, os.WNOHANG)
            if pid:
                with contextlib.suppress(OSError):
                    run.link.send(b"exit %d" % os.waitstatus_to_exitcode(status))
                send_signal(
                    run.pid, signal.SIGKILL, group=True
                )  # what is left of its group, such as workers of a killed stage
                self._forget(run)
            elif run.kill_at is not None and time.monotonic() > run.kill_at:
                send_signal(run.pid, signal.SIGKILL, group=True)

    def _forget(self, run: Run) -> None:
        self._runs.remove(run)
        run.link.close()
        _close([*run.streams, *run.ends])
        self._last_used = time.monotonic()

    def _close_door(self, why: str) -> None:
        """Take no more requests; `serve` ends with the last run."""
        if not self._closing:
            print(f"{time.strftime('%H:%M:%S')} {os.getpid()} ends: {why}", flush=True)
        self._closing = True
        self._door.close()


def _work(request: dict[str, Any]) -> int:
    """Run the request in this process, which is a fresh fork."""
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.path[:] = request["path"]
    module, _, function = request["entry"].partition(":")
    sys.argv = [module, *request["argv"]]
    random.seed()
    own_code.forget()  # all but this module, which is running
    # From here on, `import` reads the project's files as they are now.
    importlib.import_module("hqsam_pipelines.runner.clock").set_process_start_time(
        request["started"]
    )
    vars(importlib.import_module("hqsam_pipelines.runner.host_client"))["inside"] = True
    return int(getattr(importlib.import_module(module), function)(request["argv"]) or 0)


def _end(status: int) -> NoReturn:
    """End like an interpreter does: exit handlers, buffers; then without the host's own clean-up."""
    import atexit
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status & 0xFF)


def _close(fds: list[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


_KEPT: list[socket.socket] = []


def main(argv: list[str]) -> int:
    """Serve the checkout at `argv[0]` unless another host does."""
    root = Path(argv[0])
    if own_code.use(root):
        return int(importlib.import_module("hqsam_pipelines.runner.host").main(argv))
    env.prepare()
    state = env.state_dir(root)
    if not state.is_dir():
        return 0  # the checkout was removed while this process began
    lock = FileLock(state / "host.lock")
    if not lock.acquire(0):
        return 0
    os.environ.setdefault("PREFECT_HOME", str(state / "prefect"))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door,
        host_client.short_path(root) as path,
    ):
        (state / "host.sock").unlink(missing_ok=True)
        door.bind(path)
        (state / "host.sock").chmod(0o600)
        door.listen(64)
        print(f"{time.strftime('%H:%M:%S')} {os.getpid()} begins", flush=True)
        Host(root, door).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
