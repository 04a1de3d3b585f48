"""The local Prefect server as one process that ends itself: `python -m hqsam_pipelines.runner.server_daemon ROOT PORT IDLE_MINUTES`.

Started by `server.ensure`. It holds `server.lock` for life and runs Prefect's application under
uvicorn in this very process, so there is no child that could be left behind. A watchdog thread ends
it when nobody has held the lease for the idle time, and at once when the repository's folder or the
note has gone.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_base import own_code
from hqsam_base.locks import FileLock
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import server
from hqsam_pipelines.runner.server_address import healthy

if TYPE_CHECKING:
    import uvicorn

HOSTS = ("127.0.0.1", "localhost")
"""What a browser may have in its address line."""

_BACKLOG = 128
WATCH_S = 1.0
GRACE_S = 8.0


class Watchdog:
    """Decides when the server ends.

    Args:
        root: The repository.
        idle_s: Seconds without any lease after which it ends; 0 or less: never by idleness.
        quit_: Called once when it is time.
    """

    def __init__(self, root: Path, idle_s: float, quit_: Callable[[], None]) -> None:
        self._root = root
        self._idle_s = idle_s
        self._quit = quit_
        self._last_used = time.monotonic()

    def run(self) -> None:
        """Watch until it is time to end; the lease stays taken from the decision on, so nobody slips in."""
        state = self._root / env.STATE_DIR
        while True:
            time.sleep(WATCH_S)
            if not (self._root / "dvc.yaml").exists() or not (state / "server.json").exists():
                break
            lease = FileLock(state / "lease.lock", create=False)
            try:
                free = lease.acquire(0)
            except FileNotFoundError:
                break
            if not free:
                self._last_used = time.monotonic()
            elif self._idle_s > 0 and time.monotonic() - self._last_used >= self._idle_s:
                (state / "server.json").unlink(missing_ok=True)
                break  # the lease is kept until the process ends
            else:
                lease.release()
        self._quit()


def main(argv: list[str]) -> int:
    """Run the server until the watchdog or a signal ends it. Returns the exit status."""
    if own_code.use(Path(argv[0])):
        return int(importlib.import_module("hqsam_pipelines.runner.server_daemon").main(argv))
    root, idle_s = Path(argv[0]), float(argv[2]) * 60
    env.prepare()
    if not env.state_dir(root).is_dir():
        return 0  # the checkout was removed while this process began
    lock = FileLock(server.lock_path(root))
    if not lock.acquire(server.STOP_TIMEOUT_S):
        print("another Prefect server of this checkout is running", file=sys.stderr)
        return server.HELD
    os.ftruncate(lock.fd, 0)
    os.write(lock.fd, str(os.getpid()).encode())
    # That of a server that was killed: its port may be a stranger's now, and whoever believes the
    # note tells the password there.
    server.note_path(root).unlink(missing_ok=True)
    door = _open_door(preferred=int(argv[1]))
    port = door.getsockname()[1]
    web = _web_server(port, root)
    threading.Thread(target=_note_when_healthy, args=(root, port, web), daemon=True).start()
    threading.Thread(target=_watch_when_noted, args=(root, idle_s, web), daemon=True).start()
    web.run(sockets=[door])
    return 0


def _open_door(preferred: int) -> socket.socket:
    """A socket on the preferred port if it is free (so that a page left open in a browser still works), else on any free one.

    It listens at once, although the application needs seconds until it answers: at a port that is
    only bound, with SO_REUSEADDR, any other user's process may listen first, and would be sent the
    password.
    """
    for port in (preferred, 0):
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", port))
            door.listen(_BACKLOG)
        except (OSError, OverflowError):
            door.close()
            continue
        return door
    raise OSError("no free TCP port on 127.0.0.1")


def _web_server(port: int, root: Path) -> uvicorn.Server:
    """The application for callers that know the password (`PREFECT_SERVER_API_AUTH_STRING`) and for pages of its own origin.

    A page of another site is kept out even where its name has been made to lead here: the Host
    header must name this machine.
    """
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    own = [f"http://{host}:{port}" for host in HOSTS]
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(own)
    import uvicorn
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Before the door closes: whoever opens one at this port then is sent no password.
            note = server.read_note(root)
            if note is not None and note["pid"] == os.getpid():
                server.note_path(root).unlink(missing_ok=True)
            await super().shutdown(sockets)

    app = TrustedHostMiddleware(create_app(final=True), allowed_hosts=HOSTS)
    return Server(
        uvicorn.Config(app, log_level="warning", timeout_keep_alive=5, timeout_graceful_shutdown=2)
    )


def _note_when_healthy(root: Path, port: int, web: uvicorn.Server) -> None:
    """Publish the address once the server answers."""
    while not healthy(f"http://127.0.0.1:{port}/api", timeout=5):
        if web.should_exit:
            return
        time.sleep(0.03)
    path = server.note_path(root)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(
        FileNotFoundError
    ):  # the checkout went meanwhile, which the watchdog sees
        temporary.write_text(json.dumps({"pid": os.getpid(), "port": port}) + "\n")
        temporary.replace(path)


def _watch_when_noted(root: Path, idle_s: float, web: uvicorn.Server) -> None:
    while env.state_dir(root).is_dir():
        note = server.read_note(root)
        if note is not None and note["pid"] == os.getpid():
            break
        time.sleep(0.1)

    def quit_() -> None:
        web.should_exit = True
        time.sleep(GRACE_S)
        os._exit(0)  # a background service of the server did not end in time

    Watchdog(root, idle_s, quit_).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
