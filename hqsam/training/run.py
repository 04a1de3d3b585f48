"""The training program: `python -m hqsam.training.run RUN.json`, or the same under torchrun.

RUN.json is a `TrainRun`; with `-` in its place the text is in the environment, as HQSAM_TRAIN_RUN.
Without torchrun it trains in one process, on the CPU or one GPU, with no process group. Under
`torchrun --nproc-per-node N -m hqsam.training.run RUN.json`, on one machine or several, N processes
per machine share the batches; all must see the same folders.

On the standard output, each line that begins with `@` is for a program that started this one:
`@worker`, `@progress`,
`@error`, each with one JSON value. With `HQSAM_TRAIN_STDIN=1` the end of the standard input means
that this program's parent is gone, and it ends as after SIGTERM. SIGUSR1 prints the stacks of all
threads to the standard error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hqsam.training.train_run import TrainRun
from hqsam_base import own_code
from hqsam_base.errors import UserError
from hqsam_base.processes import end_with_parent

WATCH_STDIN = "HQSAM_TRAIN_STDIN"
GRACE_S = 10.0
PROGRESS_S = 0.2


def tell(word: str, value: object) -> None:
    """Write one line for the program that started this one."""
    _say(f"@{word} {json.dumps(value)}")


def _say(line: str) -> None:
    # Whoever listened may have been killed; the state must be saved all the same.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(f"{line}\n")  # in one piece: several processes may share the stream
        sys.stdout.flush()


class Throttled:
    """Passes on a few reports a second, and every last one.

    Args:
        send: gets them, as (done, total, what).
    """

    def __init__(self, send: Callable[[int, int, str], None]) -> None:
        self._send = send
        self._told = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        """Take a report."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_S or done == total:
            self._told = now
            self._send(done, total, what)


def main(argv: list[str]) -> int:
    """Train as a file says.

    Args:
        argv: its path, or `-`: its text is in HQSAM_TRAIN_RUN.

    Returns:
        Exit status: 0, 1 after a message for a person, 2 for wrong arguments. After SIGTERM the
        status is 143.
    """
    if len(argv) != 1 or argv[0] in ("-h", "--help"):
        print(__doc__, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    try:
        if own_code.use_here():
            return int(importlib.import_module("hqsam.training.run").main(argv))
    except UserError as error:
        return _explain(error)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if os.environ.get(WATCH_STDIN) == "1":
        _end_with_parent()
    from hqsam.training import (
        loop,
    )  # seconds of imports: whoever watches us counts from the next line on

    tell("worker", {"pid": os.getpid(), "rank": int(os.environ.get("RANK", "0"))})
    try:
        run = TrainRun.read(Path(argv[0]))
        loop.train(run, progress=Throttled(lambda *told: tell("progress", told)), say=_say)
    except UserError as error:
        return _explain(error)
    return 0


def _explain(error: UserError) -> int:
    tell(
        "error",
        {
            name: vars(error)[name]
            for name in ("problem", "details", "file", "key", "cure", "steps")
        },
    )
    print(f"hqsam.training.run: {error}", file=sys.stderr, flush=True)
    return 1


def _end_with_parent() -> None:
    """End when the standard input does; where the kernel offers it, at once when torchrun is killed."""
    end_with_parent()

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent").start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
