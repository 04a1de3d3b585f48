"""The light side of the stage host (see `host`): hand a stage run to a process that has the heavy imports behind it.

Fifty stage processes spend most of their start on importing Prefect, pandas and torch. The host is one background
process per checkout that has imported them and forks a child for each run. A run behaves as if it were in this very process: same
arguments, environment, folder, standard streams, signals and exit status; it ends when this process ends. Only libraries are
imported ahead, never the project's own modules, so edited code is never stale.

The host is an accelerator and nothing else: without it (`HQSAM_HOST=0`, not Linux, not started yet, other environment)
the stage runs in this process. Standard library only.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hqsam_pipelines import env

SWITCH = "HQSAM_HOST"
INSIDE = "HQSAM_INSIDE_HOST"
CONNECT_S = 2.0

# Read once when a library is imported: a host that was started under other values is no substitute.
_READ_AT_IMPORT = ("CUDA_", "GOMP_", "KMP_", "LD_", "MALLOC_", "MKL_", "NUMEXPR_", "OMP_", "OPENBLAS_", "OPENCV_", "PYTHON")
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def enabled() -> bool:
    """Whether this process may use or start a host."""
    return sys.platform == "linux" and os.environ.get(SWITCH, "1") != "0" and INSIDE not in os.environ


def fingerprint() -> str:
    """What a host must share with its client: interpreter, installed libraries, and the environment read at import."""
    libraries = [_mark(Path(folder)) for folder in (*site.getsitepackages(), *(p for p in sys.path if "site-packages" in p))]
    here = Path(__file__).parent
    own = [_mark(here / name) for name in ("host.py", "host_client.py", "env.py", "locks.py")]
    variables = sorted((k, v) for k, v in os.environ.items() if k.startswith(_READ_AT_IMPORT))
    return json.dumps([sys.executable, sys.version, sorted(set(libraries)), own, variables])


def _mark(path: Path) -> str:
    try:
        about = path.stat()
    except OSError:
        return f"{path}:absent"
    return f"{path}:{about.st_mtime_ns}"


def run(root: Path, module: str, argv: Sequence[str]) -> int | None:
    """Run `python -m <module> <argv>` in the checkout's host.

    Args:
        root: The repository.
        module: A module with a `main(argv)` that returns an exit status, or `dvc`.
        argv: Its arguments.

    Returns:
        The exit status, or None if there is no host for us (one is being started for the next ones).
    """
    if not enabled():
        return None
    link = connect(root)
    if link is None:
        start(root)
        return None
    with link:
        return _converse(link, root, module, argv)


def connect(root: Path) -> socket.socket | None:
    """A connection to the checkout's host, or None."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.settimeout(CONNECT_S)
    try:
        with short_path(root) as path:
            link.connect(path)
    except OSError:
        link.close()
        return None
    return link


@contextlib.contextmanager
def short_path(root: Path) -> Iterator[str]:
    """The socket's address, short whatever the checkout's path: addresses of Unix sockets end at 107 bytes."""
    folder = os.open(env.state_dir(root), os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/host.sock"
    finally:
        os.close(folder)


def start(root: Path) -> None:
    """Start a host in the background and do not wait for it; several at once sort themselves out by its lock."""
    command = [sys.executable, "-m", "hqsam_pipelines.host", str(root)]
    log = env.state_dir(root) / "host.log"
    paths = os.pathsep.join(p for p in sys.path if p)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT__")}
    # The marks compare PYTHON* variables: what is set here must not differ from what the clients have.
    environment["HQSAM_HOST_PATH"] = paths
    with contextlib.suppress(OSError), log.open("ab") as out:
        subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=environment
        )


def request(module: str, argv: Sequence[str], started: float) -> dict[str, Any]:
    """What the host is told about a run."""
    return {
        "fingerprint": fingerprint(),
        "module": module,
        "argv": list(argv),
        "cwd": str(Path.cwd()),
        "environ": dict(os.environ),
        "path": sys.path,
        "umask": _umask(),
        "started": started,
    }


def _umask() -> int:
    value = os.umask(0o022)
    os.umask(value)
    return value


def _converse(link: socket.socket, root: Path, module: str, argv: Sequence[str]) -> int | None:
    from hqsam_pipelines.clock import process_start_time

    message = json.dumps(request(module, argv, process_start_time())).encode()
    sys.stdout.flush()
    sys.stderr.flush()
    # The request may be longer than a packet may be, so it travels in a file, with the three standard streams.
    body = os.memfd_create("request")
    try:
        os.write(body, message)
        socket.send_fds(link, [b"run"], [0, 1, 2, body])
        first = link.recv(4096)
    except OSError:
        return None
    finally:
        os.close(body)
    if first != b"accepted":
        if first == b"other":  # started under other conditions; it ends now, and the next client starts a fitting one
            start(root)
        return None
    with _forwarding(link):
        return _wait(link)


def _wait(link: socket.socket) -> int:
    link.settimeout(None)
    try:
        answer = link.recv(4096)
    except OSError:
        answer = b""
    if answer.startswith(b"exit "):
        return int(answer[5:])
    print("the stage host died; run the command again (HQSAM_HOST=0 does without it)", file=sys.stderr)
    return 1


@contextlib.contextmanager
def _forwarding(link: socket.socket) -> Iterator[None]:
    """Hand the signals that this process gets to the run."""

    def forward(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):
            link.send(b"signal %d" % number)

    old = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def receive_run(link: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The host's side of `run`: the request and the caller's three standard streams, or None if it is not one."""
    data, fds, _, _ = socket.recv_fds(link, 64, 4)
    if data != b"run" or len(fds) != 4:
        for fd in fds:
            os.close(fd)
        return None
    body = fds.pop()
    try:
        size = os.fstat(body).st_size
        value: dict[str, Any] = json.loads(os.pread(body, size, 0))
    finally:
        os.close(body)
    return value, fds


__all__ = ["array", "connect", "enabled", "fingerprint", "receive_run", "run", "start"]
