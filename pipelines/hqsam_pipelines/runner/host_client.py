"""The light side of the stage host (see `host`): hand a stage run to a process that has the heavy imports behind it.

Fifty stage processes spend most of their start on importing Prefect, pandas and torch. The host is
one background process per checkout that has imported them and forks a child for each run. A run
behaves as if it were in this very process: same arguments, environment, folder, standard streams,
signals and exit status; and it ends when this process ends. Only libraries are imported ahead,
never the project's own modules, so edited code is never stale.

The host is an accelerator and nothing else: without it (`HQSAM_HOST=0`, not Linux, not started yet,
other environment) the stage runs in this process. If it dies, its children are ended and the runs
begin again in their callers: stages write atomically, so nothing is lost but time. Standard library
only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import site
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hqsam_base import locks
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import clock

SWITCH = "HQSAM_HOST"
DOOR = "host.sock"
"""The host's socket in the checkout's state folder."""

inside = False
"""Set in the children of a host: they do the work themselves."""

PATIENCE_S = 3.0
ORPHAN_S = 15.0
"""How long a run may take to end itself when the host died: a training saves its state."""

RUN, GO, READY, OTHER, QUIT = b"run", b"go", b"ready", b"other", b"quit"
"""The words of the protocol: `run` + request -> `ready` or `other`; `go` -> `pid N`, `exit N`; `quit`; `signal N` at any time."""

# Read once when a library is imported: a host that was started under other values is no substitute.
_READ_AT_IMPORT = (
    "CUDA_",
    "GOMP_",
    "KMP_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "NUMEXPR_",
    "OMP_",
    "OPENBLAS_",
    "OPENCV_",
    "PYTHON",
)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def enabled() -> bool:
    """Whether this process may use or start a host."""
    return sys.platform == "linux" and os.environ.get(SWITCH, "1") != "0" and not inside


def fingerprint() -> str:
    """What a host must share with its client: interpreter, installed libraries, and the environment read at import."""
    libraries = [_mark(Path(folder)) for folder in site.getsitepackages()]
    own = [_mark(Path(str(module.__file__))) for module in (clock, env, locks)]
    own += [_mark(Path(__file__).parent / name) for name in ("host.py", "host_client.py")]
    variables = sorted((k, v) for k, v in os.environ.items() if k.startswith(_READ_AT_IMPORT))
    interpreter = [
        os.path.realpath(sys.executable),
        sys.prefix,
        sys.version,
    ]  # `python` and `python3` are the same
    return json.dumps([interpreter, libraries, own, variables])


def _mark(path: Path) -> str:
    try:
        about = path.stat()
    except OSError:
        return f"{path}:absent"
    return f"{path}:{about.st_mtime_ns}"


def run(root: Path, entry: str, argv: Sequence[str]) -> int | None:
    """Run a function in the checkout's host as if in this process.

    Args:
        root: The repository.
        entry: `module:function`; the function takes the arguments and returns an exit status.
        argv: Its arguments.

    Returns:
        The exit status, or None if there is no host for us, or it died under the run (one is then
        being started for the next ones).
    """
    if not enabled():
        return None
    link = connect(root)
    if link is None:
        start(root)
        return None
    with link:
        answer = offer(link, entry, argv)
        if answer == OTHER:
            start(root)  # the one that refused ends itself now
        if answer != READY:
            return None
        status = _commit(link)
    if status is None:
        start(root)
    return status


def connect(root: Path, name: str = DOOR) -> socket.socket | None:
    """A connection to the checkout's host, or None; a host of another user is none: it would get this environment."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.settimeout(PATIENCE_S)
    try:
        with short_path(root, name) as path:
            link.connect(path)
    except OSError:
        link.close()
        return None
    if peer(link)[1] != os.geteuid():
        link.close()
        return None
    return link


def peer(link: socket.socket) -> tuple[int, int]:
    """Process and user number of the other end of a Unix socket, as the kernel noted them when they connected."""
    pid, uid, _gid = struct.unpack(
        "3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return int(pid), int(uid)


@contextlib.contextmanager
def short_path(root: Path, name: str = DOOR) -> Iterator[str]:
    """The socket's address, short whatever the checkout's path: addresses of Unix sockets end at 107 bytes."""
    folder = os.open(env.state_dir(root), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)


def start(root: Path) -> None:
    """Start a host in the background and do not wait for it; several at once sort themselves out by its lock."""
    command = [sys.executable, "-m", "hqsam_pipelines.runner.host", str(root)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT__")}
    with contextlib.suppress(OSError), (env.make_state_dir(root) / "host.log").open("ab") as log:
        subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )


def stop(root: Path) -> bool:
    """Ask the checkout's host to end; whether there was one."""
    link = connect(root)
    if link is None:
        return False
    with link, contextlib.suppress(OSError):
        link.send(QUIT)
        link.recv(64)
    return True


def offer(
    link: socket.socket,
    entry: str,
    argv: Sequence[str],
    *,
    streams: Sequence[int] = (0, 1, 2),
    environ: Mapping[str, str] = os.environ,
) -> bytes:
    """Send the request; the host's answer, empty if none came in time. Nothing runs there until it gets `GO`.

    Args:
        link: From `connect`.
        entry: See `run`.
        argv: See `run`.
        streams: Descriptors of the run's three standard streams.
        environ: The run's environment.
    """
    umask = os.umask(0o022)
    os.umask(umask)
    request = {
        "fingerprint": fingerprint(),
        "entry": entry,
        "argv": list(argv),
        "cwd": str(Path.cwd()),
        "environ": dict(environ),
        "path": sys.path,
        "umask": umask,
        "started": clock.process_start_time(),
    }
    message = json.dumps(request).encode()
    # It may be longer than a packet may be, so it travels in a file, beside the three standard
    # streams.
    body = os.memfd_create("request")
    try:
        os.write(body, message)
        socket.send_fds(link, [RUN], [*streams, body])
        return link.recv(64)
    except OSError:
        return b""
    finally:
        os.close(body)


def _commit(link: socket.socket) -> int | None:
    """Let the run begin, hand it this process's signals, and wait for its exit status; None if the host died."""
    child, told = 0, 0

    def forward(number: int, frame: object) -> None:
        nonlocal told
        told = number
        with contextlib.suppress(OSError):
            link.send(b"signal %d" % number)

    sys.stdout.flush()
    sys.stderr.flush()
    old = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        link.settimeout(None)
        link.send(GO)
        answer = link.recv(64)
        if answer.startswith(b"pid "):
            child = int(answer[4:])
            answer = link.recv(64)
    except OSError:
        answer = b""
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if answer.startswith(b"exit "):
        status = int(answer[5:])
        if status < 0:  # this process ends by the signal that ended the run
            with contextlib.suppress(OSError):  # that of SIGKILL cannot be set
                signal.signal(-status, signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        return status
    if child:
        _end_orphan(child)
    if told:
        return 128 + told
    print("the stage host died; the run begins again without it", file=sys.stderr, flush=True)
    return None


def _end_orphan(child: int) -> None:
    """Wait until a child of a host that died has ended, by the signal that it got for that, and end what is left of its group."""
    end = time.monotonic() + ORPHAN_S
    while lives(child) and time.monotonic() < end:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while lives(child):
        time.sleep(0.05)


def lives(process: int) -> bool:
    """Whether a process is there and no zombie, which nobody may be there to reap."""
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in (b"Z", b"X")


def receive_request(link: socket.socket) -> tuple[bytes, dict[str, Any], list[int]] | None:
    """The host's side of `offer`: the first packet of a connection.

    Returns:
        The word, the request (empty unless the word is `RUN`) and the caller's three standard
        streams; None if the connection was closed or the packet is not ours.
    """
    word, fds, _, _ = socket.recv_fds(link, 64, 4)
    if word == QUIT and not fds:
        return word, {}, []
    if word != RUN or len(fds) != 4:
        for fd in fds:
            os.close(fd)
        return None
    body = fds.pop()
    try:
        value = json.loads(os.pread(body, os.fstat(body).st_size, 0))
        known = {name: type(value[name]) for name in ("fingerprint", "entry", "argv", "environ")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        known = {}
    finally:
        os.close(body)
    if list(known.values()) != [str, str, list, dict]:
        for fd in fds:
            os.close(fd)
        return None
    return word, value, fds
