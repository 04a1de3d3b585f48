"""Advisory locks between processes (`flock`): the kernel drops them when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_S = 0.02


class FileLock:
    """One `flock` on one file.

    Args:
        path: The lock file; created if missing. Its folder must exist.
        shared: A shared lock (many holders) instead of an exclusive one.
        remove: Remove the file when the lock is released; for exclusive locks in folders that are
            somebody else's, such as outputs. Every user of one file must say the same.
        create: Make the file if it is missing; otherwise `acquire` raises FileNotFoundError then.
    """

    def __init__(
        self, path: Path, *, shared: bool = False, remove: bool = False, create: bool = True
    ) -> None:
        self._path = path
        self._mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._remove = remove
        self._flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        self._fd: int | None = None

    def acquire(self, timeout: float | None = None) -> bool:
        """Take the lock. On a file system without locks nobody waits for anybody.

        Args:
            timeout: Seconds to wait; 0 tries once, None waits without limit.

        Returns:
            Whether the lock is held now.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self._try(wait=timeout is None):
            if end is not None:
                if time.monotonic() >= end:
                    return False
                time.sleep(_POLL_S)
        return True

    def _try(self, *, wait: bool) -> bool:
        fd = os.open(self._path, self._flags, 0o644)
        # Between open and lock the former holder may have removed the file: that lock guards
        # nothing.
        if not _flock(fd, self._mode if wait else self._mode | fcntl.LOCK_NB) or (
            self._remove and not _is_file(fd, self._path)
        ):
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._fd is not None:
            if self._remove:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None

    @property
    def fd(self) -> int:
        """The locked file descriptor (to write the holder's note into the file)."""
        assert self._fd is not None, "the lock is not held"
        return self._fd


@contextlib.contextmanager
def locked(
    path: Path, *, shared: bool = False, timeout: float | None = None, remove: bool = False
) -> Iterator[FileLock]:
    """Hold a `FileLock` for the block.

    Raises:
        TimeoutError: It was not acquired within `timeout` seconds.
    """
    lock = FileLock(path, shared=shared, remove=remove)
    if not lock.acquire(timeout):
        raise TimeoutError(f"{path}: another process has held this lock for {timeout:.0f} s")
    try:
        yield lock
    finally:
        lock.release()


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder if nobody else holds it; the lock ends when the descriptor is closed."""
    return _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: Path) -> bool:
    """Tell whether any process holds a lock, exclusive or shared, on a file or folder."""
    try:
        # Some network file systems lock only what is open for writing.
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        return False
    except (
        OSError
    ):  # some network file systems refuse locks: there everything can be locked, by everybody
        return True
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
