"""Real training processes for the tests, forked from one server that has torch imported: a start costs tenths of a second."""

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import psutil

from hqsam.training.train_run import TrainRun

CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = [
    "hqsam.training.loop",
    "hqsam.training.run",
    "torch.distributed",
    "torch._dynamo",
    "PIL.Image",
]


STARTED: list[int | None] = []


def start_server() -> None:
    """Have the server run that has torch imported, instead of one that the data part's tests may have started."""
    server = forkserver._forkserver
    if server._forkserver_pid is None or server._forkserver_pid not in STARTED:
        server._stop()
        CONTEXT.set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
        STARTED.append(server._forkserver_pid)


def child(text: str, environ: dict[str, str], steps) -> None:
    """Train in this process; tell each step."""
    os.environ.update(environ)
    from hqsam.training import loop

    spec = TrainRun.model_validate_json(text)

    def progress(done: int, total: int, what: str) -> None:
        steps.send((done, total, what))

    loop.train(spec, progress=progress, say=lambda _line: None)


def listening(processes: list[psutil.Process]) -> set[tuple[str | None, str]]:
    """Rank (None: no training process) and local address of every TCP socket that processes listen on."""
    return {
        (process.environ().get("RANK"), connection.laddr.ip)
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Training:
    """`size` processes that train together, as torchrun would start them."""

    spec: TrainRun
    size: int

    def start(self) -> None:
        start_server()
        port = str(free_port())
        self.steps, theirs = CONTEXT.Pipe(duplex=False)
        self.processes = []
        for rank in range(self.size):
            environ = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self.size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "GLOO_SOCKET_IFNAME": "lo",
            }
            process = CONTEXT.Process(
                target=child, args=(self.spec.model_dump_json(), environ, theirs), daemon=True
            )
            process.start()
            self.processes.append(process)
        theirs.close()

    def wait_for(self, step: int) -> bool:
        """Whether that many more steps were taken before the training ended."""
        with contextlib.suppress(EOFError):
            while True:
                _done, _total, what = self.steps.recv()
                step -= what == "steps"
                if step <= 0:
                    return True
        return False

    def signal(self, number: int, rank: int | None = None) -> None:
        for process in self.processes if rank is None else [self.processes[rank]]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def join(self, timeout: float = 60) -> list[int]:
        """Exit codes; negative: ended by a signal."""
        end = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        codes = [p.exitcode for p in self.processes]
        self.signal(signal.SIGKILL)
        return codes


def killed_again_and_again(spec: TrainRun, size: int, *, times: int, rng: random.Random) -> int:
    """Train, killed `times` times after a random number of steps, and then to the end. Returns how often it was killed."""
    kills = 0
    for _ in range(times):
        training = Training(spec, size)
        training.start()
        if not training.wait_for(rng.randint(1, 5)):
            break
        time.sleep(rng.random() * 0.05)
        training.signal(
            signal.SIGKILL, rng.randrange(size)
        )  # one dies, as in life; then torchrun ends the others
        training.signal(signal.SIGKILL)
        training.join()
        kills += (spec.out / "meta.json").exists() is False
    last = Training(spec, size)
    last.start()
    while last.wait_for(1):
        pass
    assert last.join() == [0] * size
    return kills


def weights(out: Path) -> bytes:
    return (out / "hq_head.safetensors").read_bytes()
