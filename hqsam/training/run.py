"""The training program: `python -m hqsam.training.run SPEC.json`, or the same under torchrun.

SPEC.json is a `Spec`. Without torchrun it trains in one process, on the CPU or one GPU, with no process group. Under
`torchrun --nproc-per-node N -m hqsam.training.run SPEC.json`, on one machine or several, N processes per machine share
the batches; all must see the same folders.

On the standard output, each line that begins with `@` is for a program that started this one: `@worker`, `@progress`,
`@error`, each with one JSON value. With `HQSAM_TRAIN_STDIN=1` the end of the standard input means that this program's
parent is gone, and it ends as after SIGTERM. SIGUSR1 prints the stacks of all threads to the standard error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hqsam.model.options import ModelOptions
from hqsam.training.options import TrainOptions
from hqsam_base.atomic import write_text
from hqsam_base.errors import UserError
from hqsam_base.processes import end_with_parent

WATCH_STDIN = "HQSAM_TRAIN_STDIN"
GRACE_S = 10.0
PROGRESS_S = 0.2


class Spec(BaseModel):
    """What `loop.train` needs, as a file.

    Attributes:
        shards: folder of the shard stage.
        prompts: folder of the augment stage.
        model: the base.
        options: the `train` section.
        out: folder to write.
        seed: of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: Path
    prompts: Path
    model: ModelOptions
    options: TrainOptions
    out: Path
    seed: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            UserError: it is missing or does not fit.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"the file cannot be read: {error.strerror}", file=path) from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or None
            raise UserError(first["msg"], file=path, key=key, cure="correct it") from error

    def write(self, path: Path) -> None:
        """Write a file, atomically."""
        write_text(path, self.model_dump_json(indent=1))


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
        argv: its path.

    Returns:
        Exit status: 0, 1 after a message for a person, 2 for wrong arguments. After SIGTERM the status is 143.
    """
    if len(argv) != 1 or argv[0] in ("-h", "--help"):
        print(__doc__, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if os.environ.get(WATCH_STDIN) == "1":
        _end_with_parent()
    from hqsam.training import loop  # seconds of imports: whoever watches us counts from the next line on

    tell("worker", {"pid": os.getpid(), "rank": int(os.environ.get("RANK", "0"))})
    try:
        _train(loop.train, Spec.read(Path(argv[0])))
    except UserError as error:
        return _explain(error)
    return 0


def _train(train: Callable[..., dict[str, object]], spec: Spec) -> None:
    train(
        shards=spec.shards, prompts=spec.prompts, model=spec.model, options=spec.options, out=spec.out, seed=spec.seed,
        progress=Throttled(lambda *told: tell("progress", told)), say=_say,
    )  # fmt: skip


def _explain(error: UserError) -> int:
    tell("error", {"problem": error.problem, "file": error.file, "key": error.key, "cure": error.cure})
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
