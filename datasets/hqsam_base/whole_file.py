"""Reading a file of a folder that came from elsewhere: a pipe or a device among its files may have no end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_bytes(path: Path) -> bytes:
    """Returns the content of a regular file, or of one that a link leads to.

    Raises:
        OSError: it cannot be read, or is something else, which is not waited for.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody who writes.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return file.read()
