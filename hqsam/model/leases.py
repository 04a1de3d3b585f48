"""Leases of GPUs: two stages of a checkout never take the same device.

A lease is a locked file of the device's name. The kernel drops the lock when its owner dies, however
it dies, so a lease needs no renewal and leaves nothing to clean up. Under Ray the cluster's own
resources do this (`hqsam_base.ray_parts`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from hqsam_base.locks import FileLock, locked

_POLL_S = 0.2
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """Return the devices that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    number = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return named[:number] if named else [str(n) for n in range(number)]


def environment(devices: list[str]) -> dict[str, str]:
    """Return the variables by which a child process sees these devices alone."""
    return {_VISIBLE: ",".join(devices)} if devices else {}


@contextlib.contextmanager
def leased(
    folder: Path, *, least: int, most: int, owner: str, say: Callable[[str], None]
) -> Iterator[list[str]]:
    """Hold devices for the block; waits until `least` are free.

    Those who wait do so one after the other, so that two of them never hold half of what each needs.

    Args:
        folder: of the leases; made if needed. All stages of a checkout name the same.
        least: devices that are needed.
        most: devices that are taken if they are free.
        owner: what the lease is for, shown to those who wait.
        say: hears once who holds the devices that are waited for.

    Yields:
        Their names, in the order of `visible`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held: dict[str, FileLock] = {}
    try:
        with locked(folder / "queue.lock"):
            told = False
            while True:
                for name in visible():
                    if len(held) < most and name not in held:
                        lock = FileLock(_path(folder, name))
                        if lock.acquire(0):
                            held[name] = lock
                if len(held) >= least:
                    break
                if not told:
                    say(f"waiting for {least - len(held)} GPUs: {_owners(folder, held)}")
                    told = True
                time.sleep(_POLL_S)
        for lock in held.values():
            note = json.dumps({"pid": os.getpid(), "owner": owner}).encode()
            os.ftruncate(lock.fd, 0)
            os.pwrite(lock.fd, note, 0)
        yield [name for name in visible() if name in held]
    finally:
        for lock in held.values():
            lock.release()


def _path(folder: Path, name: str) -> Path:
    return folder / f"gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"


def _owners(folder: Path, mine: dict[str, FileLock]) -> str:
    found = []
    for name in (name for name in visible() if name not in mine):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(_path(folder, name).read_bytes())
            found.append(f"{name} is held by {note['owner']} (process {note['pid']})")
    return ", ".join(found) or "others hold them"
