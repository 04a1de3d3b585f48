"""One progress callable for all libraries: a bar on a terminal, a line now and then elsewhere, an artifact on the server.

The library calls `report(done, total, what)` as often as it likes, from any thread: the call only
stores three values. A thread of ours shows them. Nothing is drawn for work that is over before
anybody could read it.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from hqsam_base.safe_text import shown
from hqsam_base.terminal import say

DRAW_S = 0.25
LINE_S = 15.0
ARTIFACT_S = 3.0


class ProgressDisplay:
    """Shows the latest report of one stage run; use as a context manager.

    Args:
        name: What the line or bar is called, for example `fetch-dis5k`.
        stream: Where to; a bar if it is a terminal, else a line every 15 s.
        artifact: Whether to publish a progress artifact for the Prefect run that is active here.
    """

    def __init__(self, name: str, *, stream: TextIO | None = None, artifact: bool = False) -> None:
        self._name = name
        self._stream = stream if stream is not None else sys.stderr
        self._latest: tuple[int, int, str] | None = None
        self._over = threading.Event()
        self._view: _Bar | _Lines = (
            _Bar(name) if self._stream.isatty() else _Lines(name, self._stream)
        )
        self._artifact = _Artifact(name) if artifact else None
        # Prefect finds the run that an artifact belongs to in the context of the caller.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._show,), daemon=True, name="progress"
        )

    def __call__(self, done: int, total: int, what: str) -> None:
        """See `Report`."""
        self._latest = (done, total, what)

    def __enter__(self) -> Self:
        """Start showing."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing and take the bar away."""
        self._over.set()
        self._thread.join(timeout=5)
        self._view.close()

    def _show(self) -> None:
        begin = published = time.monotonic()
        while not self._over.wait(DRAW_S):
            latest, now = self._shown(), time.monotonic()
            if latest is None:
                continue
            self._view.draw(*latest, now - begin)
            if self._artifact is not None and now - published >= ARTIFACT_S:
                self._artifact.publish(*latest)
                published = now
        latest = self._shown()
        if self._artifact is not None and latest is not None:
            self._artifact.finish(*latest)

    def _shown(self) -> tuple[int, int, str] | None:
        """The latest report; it names files and addresses from outside."""
        if self._latest is None:
            return None
        done, total, what = self._latest
        return done, total, shown(what)


class _Bar:
    """A rich progress bar on standard error, gone when the work is over."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[what]}", markup=False),
            TimeRemainingColumn(),
        )
        self._bars = Progress(
            *columns, console=Console(stderr=True), transient=True, auto_refresh=False
        )
        self._task = self._bars.add_task(name, total=None, what="")
        self._begun = False

    def draw(self, done: int, total: int, what: str, seconds: float) -> None:
        if not self._begun:
            self._bars.start()
            self._begun = True
        self._bars.update(self._task, completed=done, total=total or None, what=what)
        self._bars.refresh()

    def close(self) -> None:
        if self._begun:
            self._bars.stop()


class _Lines:
    """A line every `LINE_S` seconds, for logs: how far, since when, and how long it will take at the pace so far."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name = name
        self._stream = stream
        self._last = 0.0
        self._first = ("", 0, 0.0)

    def draw(self, done: int, total: int, what: str, seconds: float) -> None:
        if (
            self._first[0] != what
        ):  # another kind of work; what was done before, e.g. by a stopped run, took no time
            self._first = (what, done, seconds)
        if seconds - self._last < LINE_S:
            return
        self._last = seconds
        share = f" ({100 * done / total:.0f} %)" if total else ""
        left = ""
        _, done_before, begin = self._first
        if total and done > done_before and seconds > begin:
            rest = (total - done) * (seconds - begin) / (done - done_before)
            whole = (
                f"{rest:.0f} s"
                if rest < 600
                else f"{rest / 60:.0f} min"
                if rest < 36000
                else f"{rest / 3600:.0f} h"
            )
            left = f", about {whole} left"
        line = f"  {self._name}: {done}/{total or '?'} {what}{share}, {seconds:.0f} s{left}"
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class _Artifact:
    """A Prefect progress artifact, created when the work turns out to take long."""

    def __init__(self, name: str) -> None:
        self._key = name.replace("_", "-").lower()
        self._id: object | None = None

    def publish(self, done: int, total: int, what: str) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        percent = 100.0 * done / total if total else 0.0
        try:
            if self._id is None:
                self._id = create_progress_artifact(percent, key=self._key, description=what)
            else:
                update_progress_artifact(self._id, percent)  # type: ignore[arg-type]
        except Exception as error:
            # A picture of the progress is not worth the work that it shows.
            say(f"  {self._key}: no progress artifact: {error}", err=True)

    def finish(self, done: int, total: int, what: str) -> None:
        if self._id is not None:
            self.publish(done, total, what)
