"""Train in child processes: start the training program, pass its lines and progress on, end all of it when told to.

One CPU process trains in the stage's own process: it can wait for nobody, and a second interpreter
would only cost its start; a run without epochs, which only takes over a checkpoint, stays there,
too. On a GPU, and for several processes, `hqsam.training.run` runs as a child in a session of its
own, under torchrun if there are several.
`HQSAM_LAUNCHER=ray` hands the whole to `launch_ray`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hqsam_base.atomic import read_json
from hqsam_base.errors import UserError
from hqsam_base.processes import end_with_parent, send_signal
from hqsam_base.progress import Progress
from hqsam_base.terminal import say

if TYPE_CHECKING:
    from hqsam.training.train_run import TrainRun

PROGRAM = "hqsam.training.run"
_TORCHRUN = "torch.distributed.run"
GRACE_S = 20.0
"""How long a training has to save its state after SIGTERM; it is made to need less than ten."""
DUMP_S = 3.0
START_S = 120.0
"""How long the processes may take until their first line: they import torch meanwhile."""
TAIL_LINES = 40
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
ON_LOOPBACK = {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": f"={_LOOPBACK}"}
"""Has processes of one machine talk through its loopback interface."""


def train(run: TrainRun, progress: Progress, *, leases: Path | None = None) -> dict[str, Any]:
    """Train as `run` says, here or in children.

    Args:
        run: what to train.
        progress: told how far the work is.
        leases: folder of the leases of GPUs (`hqsam.model.leases`); None: GPUs are taken without.

    Returns:
        The content of meta.json.

    Raises:
        UserError: what the training says to a person; or that it hung and was ended.
        RuntimeError: a child failed otherwise; its last lines are in the message.
    """
    if not run.options.epochs:
        return _here(run, progress)
    # Who starts the processes is a setting of the environment, because it changes no number.
    launcher = os.environ.get("HQSAM_LAUNCHER", "torchrun")
    if launcher not in ("torchrun", "ray"):
        raise UserError(
            f"unknown launcher {launcher!r}", key="HQSAM_LAUNCHER", cure="one of: torchrun, ray"
        )
    if launcher == "ray":
        from hqsam_pipelines.runner import launch_ray

        launch_ray.train(run, progress)
        return _meta(run)
    processes = count(run)
    if processes == 1 and not _on_gpu(run):
        return _here(run, progress)
    from hqsam.training import checks

    # What each process would find out for itself is found out before they are started: there may
    # be thousands.
    cycle = run.options.views == "cycle"
    views = 1 if cycle else read_json(run.prompts / "index.json").get("views", 1)
    n_items = views * read_json(run.shards / "index.json").get("n_samples", 0)
    checks.check_processes(n_items, run.options, processes)
    with _leased(run, processes, leases) as devices, _meeting_places() as places:
        given = environment(run, places[1]) | devices
        _Child(
            command(processes, places[0]),
            given,
            progress,
            hang_timeout_s=run.options.hang_timeout_s,
        ).run()
    return _meta(run)


@contextlib.contextmanager
def _leased(run: TrainRun, processes: int, folder: Path | None) -> Iterator[dict[str, str]]:
    """Variables by which the processes see the GPUs that are theirs; none on the CPU, or without leases."""
    if folder is None or not _on_gpu(run):
        yield {}
        return
    from hqsam.model import leases

    with leases.leased(
        folder,
        least=processes,
        most=processes,
        owner=f"train {run.out.name}",
        say=lambda line: say(line, err=True),
    ) as mine:
        yield leases.environment(mine)


def _here(run: TrainRun, progress: Progress) -> dict[str, Any]:
    from hqsam.training import loop

    return loop.train(run, progress=progress)


def _meta(run: TrainRun) -> dict[str, Any]:
    found: dict[str, Any] = read_json(run.out / "meta.json")
    return found


def count(run: TrainRun) -> int:
    """How many processes train.

    Raises:
        UserError: a GPU is demanded and there is none, or there are too few for the processes
            wanted.
    """
    import torch

    wanted = run.options.processes
    if not _on_gpu(run):
        return wanted or 1
    there = torch.cuda.device_count()
    if wanted > there:
        raise UserError(
            f"{wanted} training processes need a GPU each, this machine has {there}",
            key="train.processes",
            cure="set it to 0: one per GPU",
        )
    return wanted or there


def _on_gpu(run: TrainRun) -> bool:
    from hqsam.training.group import device_of

    return device_of(run.options.device).type == "cuda"


def command(processes: int, meet_at: str) -> list[str]:
    """The words that start the training program: under torchrun if there are several processes, which meet through a file."""
    words = ["-m", PROGRAM, "-"]
    if processes == 1:
        return [sys.executable, *words]
    meet = [
        "--rdzv-backend=c10d",
        "--rdzv-conf=store_type=file",
        f"--rdzv-endpoint={meet_at}",
        "--local-addr=127.0.0.1",
    ]
    here = ["--nnodes=1", f"--nproc-per-node={processes}", "--max-restarts=0"]
    # Without a place for logs, which nobody reads, it leaves a folder among the temporary files,
    # however it ends.
    here.append(f"--log-dir={os.devnull}")
    return [sys.executable, "-m", _TORCHRUN, *meet, *here, *words]


def environment(run: TrainRun, store: str) -> dict[str, str]:
    """The children's environment: whoever can reach a port of theirs could take part, so there is none but on loopback.

    By default torchrun and the process group would each listen on all interfaces, and ask nobody
    who they are. What is trained goes along here, too: a file of it would stay when this process is
    killed.
    """
    from hqsam.training.group import STORE

    return os.environ | {
        "HQSAM_TRAIN_STDIN": "1",
        "HQSAM_TRAIN_RUN": run.model_dump_json(),
        "PYTHONUNBUFFERED": "1",
        STORE: store,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        **ON_LOOPBACK,
    }


@contextlib.contextmanager
def _meeting_places() -> Iterator[list[str]]:
    """Paths of two files: where torchrun's rendezvous and where the process group meets. Nothing of them stays, however this ends."""
    if sys.platform != "linux":
        with tempfile.TemporaryDirectory(prefix="hqsam-train-") as folder:
            yield [f"{folder}/rendezvous", f"{folder}/store"]
        return
    files = [os.memfd_create(name) for name in ("rendezvous", "store")]
    try:
        yield [f"/proc/{os.getpid()}/fd/{file}" for file in files]
    finally:
        for file in files:
            os.close(file)


@dataclass
class _Child:
    """The training program and everything that it starts.

    Attributes:
        words: its command.
        environment: what it is started with.
        progress: told how far the work is.
        hang_timeout_s: without progress for so long it is ended; 0: never.
        hung: whether that happened.
        workers: process ids of the training processes, each of which leads a session of its own
            under torchrun.
        error: what it has to say to a person.
        tail: its last lines.
        lines: what came from it, None at its end.
    """

    words: list[str]
    environment: dict[str, str]
    progress: Progress
    hang_timeout_s: float
    hung: bool = False
    workers: list[int] = field(default_factory=list)
    error: UserError | None = None
    tail: list[str] = field(default_factory=list)
    lines: queue.Queue[str | None] = field(default_factory=queue.Queue)

    def run(self) -> None:
        """Run to the end, whatever it is; nothing of it is left then."""
        with self._started() as process:
            self.hung = not self._follow()
            status = None if self.hung else process.wait()
        if self.hung:
            raise UserError(
                f"the training showed no progress for {self.hang_timeout_s:.0f} s and was ended; "
                f"the stacks of its "
                "processes are in the log above",
                key="train.hang_timeout_s",
                cure="run it again: it resumes from last.pt; or allow more time",
            )
        if self.error is not None:
            raise self.error
        if status == 128 + signal.SIGTERM or status == -signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if status:
            raise RuntimeError(f"the training ended with status {status}:\n" + "\n".join(self.tail))

    @contextlib.contextmanager
    def _started(self) -> Iterator[subprocess.Popen[str]]:
        # torchrun without us would wait minutes for the file where it met, and hear no SIGTERM in
        # it; a training program of its own saves its state first.
        number = signal.SIGKILL if _TORCHRUN in self.words else signal.SIGTERM
        process = subprocess.Popen(
            self.words,
            preexec_fn=functools.partial(end_with_parent, number),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=self.environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        reader = threading.Thread(
            target=self._read, args=(process.stdout,), daemon=True, name="training output"
        )
        reader.start()
        try:
            with _sigterm_as_exit():
                yield process
        finally:
            # The program is ended first with SIGTERM, so that it saves its state, then for good,
            # and all that it started.
            if process.poll() is None:
                send_signal(process.pid, signal.SIGTERM, group=True)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S if not self.hung else DUMP_S)
            send_signal(process.pid, signal.SIGKILL, group=True)
            if process.wait() < 0:  # torchrun had no time to end its workers
                for pid in self.workers:
                    send_signal(pid, signal.SIGKILL, group=True)
            process.stdin.close()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def _follow(self) -> bool:
        """Pass everything on until the output ends; False if there was no progress for too long."""
        heard = time.monotonic()
        while True:
            try:
                line = self.lines.get(timeout=0.2)
            except queue.Empty:
                patience = (
                    self.hang_timeout_s if self.workers else max(START_S, self.hang_timeout_s)
                )
                if self.hang_timeout_s and time.monotonic() - heard > patience:
                    self._dump_stacks()
                    return False
                continue
            heard = time.monotonic()
            if line is None:
                return True
            self._take(line)

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "@progress":
            done, total, what = json.loads(rest)
            self.progress(done, total, what)
        elif word == "@worker":
            self.workers.append(json.loads(rest)["pid"])
        elif word == "@error":
            self.error = self.error or UserError(**json.loads(rest))
        elif self.error is None:  # what torchrun adds to an error is no help to a person
            self.tail = [*self.tail[-TAIL_LINES:], line]
            say(f"  {line}", err=True)

    def _dump_stacks(self) -> None:
        for pid in self.workers:
            send_signal(pid, signal.SIGUSR1)
        end = time.monotonic() + DUMP_S
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                line = self.lines.get(timeout=0.2)
                if line is not None:
                    self._take(line)


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Leave by SystemExit(143) on SIGTERM, so that the children are ended before this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
