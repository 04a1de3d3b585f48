"""Preloaded by the fork server of `hqsam_base.processes`: what Python's own server lacks.

The server leaves the caller's process group, so that a signal to the group (Ctrl-C, `timeout`, a
closed terminal) ends the caller and the processes, but not the server, which is still to tidy up:
it ends when nobody is left that could ask it for a process, and removes its socket and the folder
of that, as a caller does that is not killed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from multiprocessing import forkserver
from pathlib import Path

_CALLER = os.getppid()
_DYING_S = (
    0.02  # a killed process closes its files, which ends the server, a little before it is gone
)


def _tidy() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):  # whoever reads the caller's output is not to wait for the rest
        os.dup2(nowhere, stream)
    time.sleep(_DYING_S)
    address = getattr(forkserver._forkserver, "_forkserver_address", None)
    if address is not None and os.getppid() != _CALLER:
        with contextlib.suppress(OSError):
            Path(address).unlink()
            Path(address).parent.rmdir()
    os._exit(0)  # without the interpreter's end, which takes longer than all this


atexit.register(_tidy)  # processes that were forked end without it
with contextlib.suppress(OSError):
    os.setpgid(0, 0)
