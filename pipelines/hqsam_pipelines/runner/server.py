"""One local Prefect server per checkout: found, started, reused, stopped.

A Prefect process without a server starts a temporary one, which costs about ten seconds each time.
So the first stage that finds none starts one for the repository and the later ones reuse it. The
state lies in
`<root>/.hqsam`:

* `server.lock` is held by the server process as long as it lives, and holds its number: "is it
  running" is a question to the kernel, so a stale note or a reused process number cannot mislead
  anybody.
* `start.lock` is held by whoever is starting a server: two stages never start two.
* `lease.lock` is held, shared, by every process that uses the server. When nobody has held it for
  the idle time, the server ends (see `server_daemon`).
* `server.json` is the note with the address, from the first answer until the door closes: who finds
  it sends the password there. `prefect/` is the server's home; `server.log` is its
  log.
* `server.auth` (mode 0600) is the password, made once for the checkout, or the user's own from the
  environment. Prefect's API answers nobody without it: other users of the machine reach the port as
  well, and who may write to the API may run commands.

A server that dies is started again, at the same port, by those who use it (`running`). With
`PREFECT_API_URL` set, that server is used and none of this happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.locks import FileLock, is_held, locked
from hqsam_base.processes import send_signal
from hqsam_base.terminal import say
from hqsam_pipelines.config import env, variables
from hqsam_pipelines.runner.server_address import (
    AUTH,
    SERVER_AUTH,
    Server,
    given,
    healthy,
    refusal_is_user_error,
)

OWN = "HQSAM_SERVER_OF"
"""Set for the processes that a user of the local server starts: the checkout whose server `PREFECT_API_URL` then names."""

DEFAULT_IDLE_MINUTES = 10.0
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 15.0
"""How long a server that has answered before may be silent, until another takes its place."""
STARTS = 3
HELD = 3
"""The exit status of a server that found another one running."""
RESTARTS = 5
"""How often a user of the server brings it back, so that a machine without memory or disk is not kept busy with it."""


def note_path(root: Path) -> Path:
    """Where the running server writes its address."""
    return env.state_dir(root) / "server.json"


def lock_path(root: Path) -> Path:
    """The lock that the server process holds for life."""
    return env.state_dir(root) / "server.lock"


def lease_path(root: Path) -> Path:
    """The lock that every user of the server holds, shared."""
    return env.state_dir(root) / "lease.lock"


def log_path(root: Path) -> Path:
    """The server's own log."""
    return env.state_dir(root) / "server.log"


def home(root: Path) -> Path:
    """The server's data base and settings: `PREFECT_HOME` of every process of this checkout."""
    return env.state_dir(root) / "prefect"


def auth_path(root: Path) -> Path:
    """The password of the server, as `user:password`, for this user's eyes: Prefect's page asks for this text."""
    return env.state_dir(root) / "server.auth"


def read_note(root: Path) -> dict[str, Any] | None:
    """The note of the last server (running or not), or None if there is none or it is not readable."""
    try:
        note = json.loads(note_path(root).read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"port", "pid"} <= note.keys() else None


def status(root: Path) -> Server | None:
    """The server of this checkout (or the one of `PREFECT_API_URL`) if it runs and answers, else None."""
    return _named(root) or _running(root)


def _named(root: Path) -> Server | None:
    """The server of `PREFECT_API_URL`, unless a process of this checkout set it for its children."""
    return None if os.environ.get(OWN) == str(root) else given()


def _running(root: Path) -> Server | None:
    if not is_held(lock_path(root)):
        return None
    note = read_note(root)
    if (
        note is None or not auth_path(root).is_file()
    ):  # an earlier version's server has no password: it is replaced
        return None
    api = f"http://127.0.0.1:{note['port']}/api"
    return Server(api=api, ours=True, pid=int(note["pid"])) if healthy(api) else None


@contextlib.contextmanager
def running(root: Path) -> Iterator[Server]:
    """Use a Prefect server for the block: start one if there is none, keep it from ending itself, bring it back if it dies.

    Sets `PREFECT_API_URL`, `PREFECT_API_AUTH_STRING` and `PREFECT_HOME` in this process unless the
    caller's environment names a server.

    Raises:
        UserError: the server did not start (the message holds the end of its log), or the caller's
            does not answer.
    """
    theirs = _named(root)
    if theirs is not None:
        with refusal_is_user_error(theirs.api):
            yield theirs
        return
    env.make_state_dir(root)
    with locked(lease_path(root), shared=True):
        server = ensure(root)
        with _environment(
            PREFECT_API_URL=server.api,
            PREFECT_HOME=str(home(root)),
            **{AUTH: auth_path(root).read_text(), OWN: str(root)},
        ):
            done = threading.Event()
            threading.Thread(target=_keep_alive, args=(root, done), daemon=True).start()
            try:
                yield server
            finally:
                done.set()


def _keep_alive(root: Path, done: threading.Event) -> None:
    """Start the server again when it has died; Prefect's client tries for a minute to reach it."""
    for _ in range(RESTARTS):
        while is_held(lock_path(root)) or not lease_path(root).exists():
            if done.wait(1.0):
                return
        say("the Prefect server died; it is started again", err=True)
        try:
            ensure(root)
        except UserError as error:
            say(f"the run goes on without it: {error}", err=True, lines=True)
            return


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    old = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in old.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def ensure(root: Path, *, idle_minutes: float | None = None) -> Server:
    """The checkout's server, started if it does not run. The caller holds a lease if it wants to keep it.

    Raises:
        UserError: it did not start; the message holds the end of its log.
    """
    server = _running(root)
    if server is not None:
        return server
    try:
        with locked(env.make_state_dir(root) / "start.lock", timeout=2 * START_TIMEOUT_S):
            # Somebody else may have started it while we waited.
            return _start(root, idle_minutes)
    except TimeoutError as error:
        raise UserError(
            "another process has been starting the Prefect server for too long",
            file=log_path(root),
            cure="look into the log, then run `hqsam server stop` and try again",
        ) from error


def _start(root: Path, idle_minutes: float | None) -> Server:
    """Start the daemon and wait until it answers, or take the one that runs. Called with `start.lock` held."""
    lease_path(root).touch()
    for _ in range(STARTS):  # the kernel may kill one for want of memory
        server = _answering_holder(root)
        if server is not None:
            return server
        process = _daemon(root, idle_minutes)
        end = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < end:
            server = _running(root)
            if server is not None:
                return replace(server, started_now=server.pid == process.pid)
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
            raise _start_error(
                root, f"the Prefect server did not answer within {START_TIMEOUT_S:.0f} s"
            )
        if process.returncode not in (-signal.SIGKILL, -signal.SIGTERM, HELD):
            break
    raise _start_error(root, f"the Prefect server ended at once (exit {process.returncode})")


def _answering_holder(root: Path) -> Server | None:
    """The server that holds the lock, as soon as it answers; None once nobody holds it.

    Its starter may have been killed: then it has no note yet and answers in some seconds. One that
    never answers is ended: two servers must not have one data base.
    """
    begin = time.monotonic()
    while is_held(lock_path(root)):
        server = _running(root)
        if server is not None:
            return server
        patience = START_TIMEOUT_S if read_note(root) is None else ANSWER_TIMEOUT_S
        if time.monotonic() - begin > patience:
            _signal_holder(root, signal.SIGKILL)
            _wait_unlocked(root, 5.0)
        time.sleep(0.05)
    return None


def _signal_holder(root: Path, number: int) -> None:
    """Send a signal to the server that holds the lock; one of an earlier version has left its number in the note only."""
    said = lock_path(root).read_text().strip() or (read_note(root) or {}).get("pid")
    if said:
        send_signal(int(said), number)


def _daemon(root: Path, idle_minutes: float | None) -> subprocess.Popen[bytes]:
    if idle_minutes is None:
        idle_minutes = variables.number("HQSAM_SERVER_IDLE_MINUTES", DEFAULT_IDLE_MINUTES)
    command = [
        sys.executable,
        "-m",
        "hqsam_pipelines.runner.server_daemon",
        str(root),
        str((read_note(root) or {}).get("port", 0)),
        str(idle_minutes),
    ]
    # The caller's environment without what belongs to its own flow run or address, but with the
    # password.
    drop = (
        "PREFECT_API_",
        "PREFECT__",
        "PREFECT_SERVER_API_",
        "PREFECT_CLIENT_",
        OWN,
        "COVERAGE_",
        "PYTEST_",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    password = _password(root)
    ours = {"PREFECT_HOME": str(home(root)), SERVER_AUTH: password, AUTH: password}
    with log_path(root).open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**kept, **ours, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )


def _password(root: Path) -> str:
    """The user's password from the environment, or that of the checkout, made now if there is none; `auth_path` holds it then.

    Raises:
        UserError: the user's has characters that Prefect cannot compare.
    """
    path = auth_path(root)
    named = next((name for name in (SERVER_AUTH, AUTH) if os.environ.get(name)), None)
    if named is None and path.is_file() and (found := path.read_text()):
        path.chmod(0o600)
        return found
    password = os.environ[named] if named else f"hqsam:{secrets.token_urlsafe(32)}"
    if not password.isascii():
        raise UserError(
            "the password holds letters that are not ASCII", key=named, cure="choose another one"
        )
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password)
    temporary.replace(path)
    return password


def _start_error(root: Path, problem: str) -> UserError:
    try:
        tail = log_path(root).read_text(errors="replace").splitlines()[-8:]
    except OSError:
        tail = []
    return UserError(
        f"{problem}; the end of its log:",
        details=tail,
        file=log_path(root),
        cure="free the disk or the port, or set PREFECT_API_URL to a server that runs",
    )


def _wait_unlocked(root: Path, timeout: float) -> bool:
    lock = FileLock(lock_path(root))
    try:
        free = lock.acquire(timeout)
    except FileNotFoundError:
        return True  # the checkout went meanwhile
    lock.release()
    return free


def stop(root: Path) -> bool:
    """Stop this checkout's server, even if it is in use.

    Returns:
        Whether one was running.

    Raises:
        UserError: it did not end.
    """
    if not is_held(lock_path(root)):
        return False
    for number, patience in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
        _signal_holder(root, number)
        if _wait_unlocked(root, patience):
            return True
    raise UserError(
        "the Prefect server does not end",
        file=lock_path(root),
        cure="end it by hand; see server.log",
    )
