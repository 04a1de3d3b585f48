"""Who is at work in a checkout, by DVC's own list of locks, and one queue for those who want to be.

DVC does not wait for another DVC that works on the same files: it ends with the advice to remove a
file by hand. Here one waits, and is told for whom.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.locks import FileLock
from hqsam_base.terminal import say
from hqsam_pipelines.config import env, variables
from hqsam_pipelines.runner.host_client import lives

BUSY = "is busy, it is being blocked by:"
"""What DVC says of a file that another DVC works on."""

TORN = "Unable to read RWLock-file"
"""What DVC says of a list that a killed DVC has written half: it writes it in place."""

WAIT_VARIABLE = "HQSAM_WAIT_HOURS"
WAIT_HOURS = 24.0


@contextlib.contextmanager
def queued(root: Path, what: str) -> Iterator[None]:
    """Be the only run of the checkout for the block; wait for another one, and say for whom.

    Args:
        root: The repository.
        what: The command, for those who wait.

    Raises:
        UserError: the other run did not end within `HQSAM_WAIT_HOURS` (24).
    """
    lock = FileLock(env.make_state_dir(root) / "run.lock")
    note = root / env.STATE_DIR / "run.lock"
    wait(lambda: lock.acquire(0), lambda: note.read_text().strip() or "another run", note)
    try:
        os.ftruncate(lock.fd, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        user = f"user {os.geteuid()}"
        with contextlib.suppress(KeyError, OSError):
            user = getpass.getuser()
        os.write(lock.fd, f"{what} (process {os.getpid()}, {user}, since {since})".encode())
        wait_for_dvc(root)
        yield
    finally:
        lock.release()


def wait_for_dvc(root: Path, *, but: str | None = None) -> None:
    """Wait until no living process is in DVC's list of locks, and forget the dead ones.

    A process that was killed stays in the list. DVC takes it for a living one as long as nobody has
    reaped it, or when its number was given away again.

    Args:
        root: The repository.
        but: Processes not to wait for: how their command begins.

    Raises:
        UserError: see `queued`.
    """
    place = root / ".dvc" / "tmp"

    def others() -> str:
        return "; ".join(name for name in _living(place) if but is None or not name.startswith(but))

    wait(lambda: not others(), others, place / "rwlock")


def _living(place: Path) -> list[str]:
    """The commands of those in DVC's list that live; the others are taken out of it."""
    from dvc.fs import localfs
    from dvc.lock import LockError
    from dvc.rwlock import RWLockFileCorruptedError, _edit_rwlock

    if not (place / "rwlock").exists():
        return []
    try:
        with _edit_rwlock(str(place), localfs, False) as found:
            for path, entry in list(found["write"].items()):
                if not lives(entry["pid"]):
                    del found["write"][path]
            for path, entries in list(found["read"].items()):
                found["read"][path] = [entry for entry in entries if lives(entry["pid"])]
            every = [*found["write"].values(), *(e for row in found["read"].values() for e in row)]
    except LockError:
        return ["DVC"]
    except RWLockFileCorruptedError:
        forget_torn(place.parent.parent)
        return []
    return sorted({f"{entry['cmd']} (process {entry['pid']})" for entry in every})


def forget_torn(root: Path) -> None:
    """Remove DVC's list of locks if it is not JSON: nobody can tell what was in it, and every DVC refuses it."""
    from dvc.lock import make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    place = root / ".dvc" / "tmp"
    with make_lock(str(place / RWLOCK_LOCK), tmp_dir=str(place)):
        try:
            json.loads((place / RWLOCK_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError:
            (place / RWLOCK_FILE).unlink()


def wait(free: Callable[[], bool], whom: Callable[[], str], file: Path) -> None:
    """Wait until it is free, and say for whom.

    Args:
        free: Tries.
        whom: Who is at work; empty: nobody knows.
        file: What they hold, for the message.

    Raises:
        UserError: it was not free within `HQSAM_WAIT_HOURS` (24).
    """
    hours = variables.number(WAIT_VARIABLE, WAIT_HOURS)
    begin, said = time.monotonic(), ""
    while not free():
        other = whom()
        if other and other != said:
            say(f"waiting for {other}; at most {hours:g} hours ({WAIT_VARIABLE})", err=True)
            said = other
        if time.monotonic() - begin > hours * 3600:
            cure = f"wait for it, or end it, then run again; {WAIT_VARIABLE} waits longer"
            raise UserError(f"still at work: {other}", file=file, cure=cure)
        time.sleep(0.5)
