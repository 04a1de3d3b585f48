"""What surrounds a training: fixed arithmetic, a scratch folder, and the signals that end it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import torch

from hqsam.training.group import Group


@contextlib.contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Fixed thread counts and deterministic algorithms inside; the caller's settings afterwards."""
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        cv2.getNumThreads(),
    )
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = (
        torch.utils.deterministic
    )  # its attribute is a property that the module makes for itself
    fill = memory.fill_uninitialized_memory
    try:
        if threads:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = (
            False  # a twentieth of a step, to find a bug we do not have
        )
        cv2.setNumThreads(1)
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        cv2.setNumThreads(before[2])


@contextlib.contextmanager
def scratch(out: Path, group: Group) -> Iterator[Path]:
    """A folder beside the outputs for the features, which can be large; one for all processes, removed at the end.

    A run that does not come to its end leaves what it had encoded for the next one.
    """
    folder = out.parent / f".{out.name}.features"
    folder.mkdir(exist_ok=True)
    group.wait()
    try:
        yield folder
        if group.leads:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if it is empty


class Stopped(BaseException):
    """SIGTERM came during work that can be given up."""


class Stop:
    """Whether SIGTERM has come, and what it does: it is noted, or ends a piece of work at once.

    Attributes:
        asked: whether it has come.
    """

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """The signal's handler."""
        self.asked = True
        if self._at_once:
            self._at_once = False
            raise Stopped

    @contextlib.contextmanager
    def at_once(self, allowed: bool = True) -> Iterator[None]:
        """Raise `Stopped` in this block as soon as SIGTERM comes, or if it has come before.

        Args:
            allowed: whether to; a process that others wait for has to go on to where they meet.
        """
        if not allowed:
            yield
            return
        self._at_once = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._at_once = False


@contextlib.contextmanager
def noting_sigterm() -> Iterator[Stop]:
    """Note SIGTERM instead of ending, so that the state can be saved; works in the main thread only."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, stop.note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
