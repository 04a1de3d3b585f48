"""One local Prefect server per checkout: found, started, reused, stopped.

A Prefect process without a server starts a temporary one, which costs about ten seconds each time.
So the first stage that finds none starts one for the repository and the later ones reuse it. The
state lies in
`<root>/.hqsam`:

* `server.lock` is held by the server process as long as it lives: "is it running" is a question to
  the kernel, so a stale note or a reused process number cannot mislead anybody.
* `start.lock` is held by whoever is starting a server: two stages never start two.
* `lease.lock` is held, shared, by every process that uses the server. When nobody has held it for
  the idle time, the server ends (see `server_daemon`).
* `server.json` is the note with the address; `prefect/` is the server's home; `server.log` is its
  log.
* `server.auth` (mode 0600) is the password, made once for the checkout, or the user's own from the
  environment. Prefect's API answers nobody without it: other users of the machine reach the port as
  well, and who may write to the API may run commands.

With `PREFECT_API_URL` set, that server is used and none of this happens.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.locks import FileLock, is_held, locked
from hqsam_pipelines.config import env

SERVER_AUTH, AUTH = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
"""The variables by which Prefect's server and its clients learn the password."""

DEFAULT_IDLE_MINUTES = 10.0
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Server:
    """A reachable Prefect server: `api` is its API address, `page` its user interface, `ours` whether we run it."""

    api: str
    ours: bool
    pid: int | None = None
    started_now: bool = False

    @property
    def page(self) -> str:
        """The address that a person opens in a browser."""
        return self.api.removesuffix("/").removesuffix("/api")


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


def healthy(api: str, timeout: float = 2.0) -> bool:
    """Whether a Prefect server answers at `api` (`http://host:port/api`)."""
    try:
        direct = env.is_loopback(urllib.parse.urlsplit(api).hostname or "")
        opener = urllib.request.build_opener(*[urllib.request.ProxyHandler({})] * direct)
        with opener.open(f"{api.rstrip('/')}/health", timeout=timeout) as answer:
            # A server's pages answer every address, also one without /api, with a page.
            return bool(answer.status == 200 and not answer.read(64).lstrip().startswith(b"<"))
    except (OSError, ValueError, http.client.HTTPException):
        return False


def given() -> Server | None:
    """The server that PREFECT_API_URL names, or None where it names none.

    Raises:
        UserError: it is not an address of a server's API: without http:// or https://, host, or the
            /api at its end.
    """
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        return None
    cure = "set it to http://HOST:PORT/api, or to what your server's settings name"
    if not api.startswith(("http://", "https://")):
        raise UserError(
            "the address has no http:// or https://", file=api, key="PREFECT_API_URL", cure=cure
        )
    if not _has_host(api):
        raise UserError(
            "the address has no host, or an invalid port",
            file=api,
            key="PREFECT_API_URL",
            cure=cure,
        )
    if "api" not in urllib.parse.urlsplit(api).path.split("/") and (right := _right_address(api)):
        problem = "this is the address of the server's pages; its API has /api at the end"
        raise UserError(problem, file=api, key="PREFECT_API_URL", cure=f"set it to {right}")
    return Server(api=api, ours=False)


def _has_host(api: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(api)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that are not closed, or a port that is not a number up to 65535
        return False


def _right_address(api: str) -> str | None:
    """The address near a wrong one at which a server does answer: with /api, for that of a page, or with the other scheme."""
    scheme, rest = api.rstrip("/").split("://", 1)
    other = {"http": "https", "https": "http"}[scheme]
    near = [
        f"{scheme}://{rest}/api",
        f"{scheme}://{rest.partition('/')[0]}/api",
        f"{other}://{rest}",
    ]
    return next((address for address in near if healthy(address)), None)


def status(root: Path) -> Server | None:
    """The server of this checkout (or the one of `PREFECT_API_URL`) if it runs and answers, else None."""
    return given() or _running(root)


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
    """Use a Prefect server for the block: start one if there is none, and keep it from ending itself meanwhile.

    Sets `PREFECT_API_URL`, `PREFECT_API_AUTH_STRING` and `PREFECT_HOME` in this process unless the
    caller's environment names a server.

    Raises:
        UserError: the server did not start (the message holds the end of its log), or the caller's
            does not answer.
    """
    theirs = given()
    if theirs is not None:
        with _refusal_is_user_error(theirs.api):
            yield theirs
        return
    env.make_state_dir(root)
    with locked(lease_path(root), shared=True):
        server = ensure(root)
        with _environment(
            PREFECT_API_URL=server.api,
            PREFECT_HOME=str(home(root)),
            **{AUTH: auth_path(root).read_text()},
        ):
            yield server


@contextlib.contextmanager
def _refusal_is_user_error(api: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        response = getattr(error, "response", None)  # of httpx, which is not imported for this
        if getattr(response, "status_code", None) == 401 and str(response.url).startswith(api):  # type: ignore[union-attr]
            cure = (
                f"set {AUTH} to the server's password; of a checkout's own server that is the "
                f"content of .hqsam/server.auth"
            )
            raise UserError(
                "the Prefect server refuses the password", file=api, key=AUTH, cure=cure
            ) from None
        if not isinstance(error, RuntimeError) or "Failed to reach API" not in str(error):
            raise
        right = _right_address(api)
        cure = "start that server, or unset the variable: a local one is then started"
        cure = f"set it to {right}, where one answers" if right else cure
        raise UserError(
            "the Prefect server does not answer", file=api, key="PREFECT_API_URL", cure=cure
        ) from error


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
    """The checkout's server, started if it does not run. The caller holds a lease if it wants to keep it."""
    server = _running(root)
    if server is not None:
        return server
    try:
        with locked(env.make_state_dir(root) / "start.lock", timeout=START_TIMEOUT_S):
            server = _running(root)  # somebody else may have started it while we waited
            return server if server is not None else _start(root, idle_minutes)
    except TimeoutError as error:
        raise UserError(
            "another process has been starting the Prefect server for too long",
            file=log_path(root),
            cure="look into the log, then run `hqsam server stop` and try again",
        ) from error


def _start(root: Path, idle_minutes: float | None) -> Server:
    """Start the daemon and wait until it answers. Called with `start.lock` held."""
    _end_old(root)
    lease_path(root).touch()
    if idle_minutes is None:
        idle_minutes = float(os.environ.get("HQSAM_SERVER_IDLE_MINUTES", DEFAULT_IDLE_MINUTES))
    preferred = (read_note(root) or {}).get("port", 0)
    command = [
        sys.executable,
        "-m",
        "hqsam_pipelines.runner.server_daemon",
        str(root),
        str(preferred),
        str(idle_minutes),
    ]
    with log_path(root).open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=_daemon_environment(root),
        )
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise _start_error(
                root, f"the Prefect server ended at once (exit {process.returncode})"
            )
        if _is_noted(root, process.pid) and (server := _running(root)) is not None:
            return replace(server, started_now=True)
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    raise _start_error(root, f"the Prefect server did not answer within {START_TIMEOUT_S:.0f} s")


def _is_noted(root: Path, pid: int) -> bool:
    note = read_note(root)
    return note is not None and note["pid"] == pid


def _daemon_environment(root: Path) -> dict[str, str]:
    """The caller's environment without what belongs to its own flow run or address, but with the password."""
    drop = (
        "PREFECT_API_",
        "PREFECT__",
        "PREFECT_SERVER_API_",
        "PREFECT_CLIENT_",
        "COVERAGE_",
        "PYTEST_",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    password = _password(root)
    ours = {"PREFECT_HOME": str(home(root)), SERVER_AUTH: password, AUTH: password}
    return {**kept, **ours, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


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


def _end_old(root: Path) -> None:
    """A server that holds its lock but does not answer is ended before a new one starts on the same data base."""
    if is_held(lock_path(root)) and not _wait_unlocked(root, 15.0):
        note = read_note(root)
        if note is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(note["pid"]), signal.SIGKILL)
        _wait_unlocked(root, 5.0)


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
    note = read_note(root)
    if note is None:
        raise UserError(
            "a server runs but its note is gone",
            file=note_path(root),
            cure="end it by hand; see server.log",
        )
    for sig, patience in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(note["pid"]), sig)
        if _wait_unlocked(root, patience):
            return True
    raise UserError(f"the Prefect server (process {note['pid']}) does not end", file=log_path(root))
