"""The local Prefect server as one process that ends itself: `python -m hqsam_pipelines.runner.server_daemon ROOT PORT IDLE_MINUTES`.

Started by `server.ensure`. It holds `server.lock` for life and runs Prefect's application under uvicorn in this very
process, so there is no child that could be left behind. A watchdog thread ends it when nobody has held the lease for
the idle time, and at once when the repository's folder or the note has gone.
"""

from __future__ import annotations

import importlib
import json
import os
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

if TYPE_CHECKING:
    import uvicorn

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
            lease = FileLock(state / "lease.lock")
            if not lease.acquire(0):
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
    root, port, idle_s = Path(argv[0]), int(argv[1]), float(argv[2]) * 60
    env.prepare()
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    lock = FileLock(server.lock_path(root))
    if not lock.acquire(server.STOP_TIMEOUT_S):
        print("another Prefect server of this checkout is running", file=sys.stderr)
        return 3
    web = _web_server(port)
    threading.Thread(target=_note_when_healthy, args=(root, port, web), daemon=True).start()
    threading.Thread(target=_watch_when_noted, args=(root, idle_s, web), daemon=True).start()
    web.run()
    _remove_own_note(root)
    return 0


def _web_server(port: int) -> uvicorn.Server:
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(
        create_app(final=True), host="127.0.0.1", port=port, log_level="warning", timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    return uvicorn.Server(config)


def _note_when_healthy(root: Path, port: int, web: uvicorn.Server) -> None:
    """Publish the address once the server answers."""
    while not web.should_exit and not server.healthy(f"http://127.0.0.1:{port}/api", timeout=5):
        time.sleep(0.03)
    path = server.note_path(root)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"pid": os.getpid(), "port": port}) + "\n")
    temporary.replace(path)


def _watch_when_noted(root: Path, idle_s: float, web: uvicorn.Server) -> None:
    while True:
        note = server.read_note(root) if root.exists() else {"pid": os.getpid()}
        if note is not None and note["pid"] == os.getpid():
            break
        time.sleep(0.1)

    def quit_() -> None:
        web.should_exit = True
        time.sleep(GRACE_S)
        os._exit(0)  # a background service of the server did not end in time

    Watchdog(root, idle_s, quit_).run()


def _remove_own_note(root: Path) -> None:
    if root.exists():
        note = server.read_note(root)
        if note is not None and note["pid"] == os.getpid():
            server.note_path(root).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
