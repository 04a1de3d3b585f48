"""Advisory locks between processes (`flock`): the kernel drops them when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


class FileLock:
    """One `flock` on one file; the file stays when the lock goes (deleting it would race with the next holder).

    Args:
        path: The lock file; created if missing. Its folder must exist.
        shared: A shared lock (many holders) instead of an exclusive one.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self._path = path
        self._mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._fd: int | None = None

    def acquire(self, timeout: float | None = None) -> bool:
        """Take the lock.

        Args:
            timeout: Seconds to wait; 0 tries once, None waits without limit.

        Returns:
            Whether the lock is held now.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, self._mode | fcntl.LOCK_NB)
            except BlockingIOError:
                if end is not None and time.monotonic() >= end:
                    os.close(fd)
                    return False
                time.sleep(0.02)
                continue
            self._fd = fd
            return True

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def fd(self) -> int:
        """The locked file descriptor (to write the holder's note into the file)."""
        assert self._fd is not None, "the lock is not held"
        return self._fd


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, timeout: float | None = None) -> Iterator[FileLock]:
    """Hold a `FileLock` for the block.

    Raises:
        TimeoutError: not acquired within `timeout` seconds.
    """
    lock = FileLock(path, shared=shared)
    if not lock.acquire(timeout):
        raise TimeoutError(f"{path}: another process has held this lock for {timeout:.0f} s")
    try:
        yield lock
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether any process holds a lock on `path` (exclusive or shared)."""
    if not path.exists():
        return False
    lock = FileLock(path)
    if not lock.acquire(0):
        return True
    lock.release()
    return False
