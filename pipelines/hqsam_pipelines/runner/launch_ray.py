"""Train on a Ray cluster: one `ray.train.torch.TorchTrainer` worker for each process that torchrun would start.

`HQSAM_LAUNCHER=ray` chooses it, `RAY_ADDRESS` names the cluster (without one a local Ray is started
and ended). All nodes must see the folders of the run under the same paths. Ray makes the process
group (on a local cluster
`hqsam.training.group` does) and the training joins it, so the weights are those of the same number
of torchrun's processes, bit for bit.

A Ray worker trains in a thread, where no signal arrives: a run that is cancelled goes on from the
last `last.pt` (`train.save_every`), not from the very step.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam_base import own_code
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_base.terminal import say
from hqsam_pipelines.config import env

if TYPE_CHECKING:
    from hqsam.training.train_run import TrainRun

NO_LIMIT_S = 7 * 24 * 3600
"""How long a collective operation may take when `train.hang_timeout_s` is 0; torch wants a number."""


def train(run: TrainRun, progress: Progress) -> None:
    """Train as `run` says on the cluster; `run.out` is complete then.

    Args:
        run: what to train.
        progress: told how far the work is, from a thread of this function's own.

    Raises:
        UserError: Ray is not installed, the cluster is too small, or what the training says to a
            person.
        RuntimeError: a worker failed otherwise.
    """
    ray = _ray()
    # Where Ray keeps its notes of a run: beside the outputs, which all nodes see. Nothing of them
    # is kept.
    parent = run.out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with _cluster(ray, run) as meeting_point:
        resources = ray.cluster_resources()
        workers = count(run, resources)
        with (
            _Inbox(progress) as inbox,
            tempfile.TemporaryDirectory(prefix=".ray-", dir=parent) as storage,
        ):
            try:
                _trainer(
                    run, workers, _on_gpu(run, resources), inbox.queue, storage, meeting_point
                ).fit()
            except ray.train.TrainingFailedError as error:
                inbox.close()
                raise inbox.error or RuntimeError(f"the training on Ray failed: {error}") from error


def count(run: TrainRun, resources: dict[str, float]) -> int:
    """How many workers train.

    Args:
        run: what to train; 0 processes mean one per GPU of the cluster, or one without GPUs.
        resources: of the cluster, as `ray.cluster_resources()` gives them.

    Raises:
        UserError: more workers than the cluster has room for (Ray would wait for ever).
    """
    kind = "GPU" if _on_gpu(run, resources) else "CPU"
    there = int(resources.get(kind, 0))
    wanted = run.options.processes or (max(there, 1) if kind == "GPU" else 1)
    if wanted > there:
        raise UserError(
            f"{wanted} training processes need a {kind} each, the Ray cluster has {there}",
            key="train.processes",
            cure="start more nodes, or ask for fewer processes",
        )
    return wanted


def _on_gpu(run: TrainRun, resources: dict[str, float]) -> bool:
    wanted = run.options.device
    return wanted == "cuda" or (wanted == "auto" and resources.get("GPU", 0) >= 1)


def _ray() -> Any:
    env.keep_ray_local()
    try:
        import ray
        import ray.train.torch
    except ImportError as error:
        raise UserError(
            f"HQSAM_LAUNCHER=ray needs the module {error.name!r}",
            cure="pip install 'hqsam-pipeline[ray]'",
        ) from error
    return ray


@contextlib.contextmanager
def _cluster(ray: Any, run: TrainRun) -> Iterator[Path | None]:
    """The cluster that is connected already, that `RAY_ADDRESS` names, or a local one of the size needed.

    Gives the file through which the workers of a local one meet. Ray itself would have them meet at
    a port that is open to all interfaces; workers on several machines cannot do without.
    """
    if ray.is_initialized():
        yield None
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level="WARNING")
    else:
        size = max(run.options.processes, os.cpu_count() or 1)
        ray.init(
            address="local",
            num_cpus=size,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="WARNING",
        )
    try:
        with tempfile.TemporaryDirectory(prefix="hqsam-train-") as folder:
            yield None if os.environ.get("RAY_ADDRESS") else Path(folder) / "store"
    finally:
        ray.shutdown()


def _trainer(
    run: TrainRun, workers: int, on_gpu: bool, inbox: Any, storage: str, meeting_point: Path | None
) -> Any:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer

    class NoGroup(Backend):  # type: ignore[misc]  # mypy reads no Ray
        """Leaves the process group to `hqsam.training.group`."""

        share_cuda_visible_devices = (
            True  # like Ray's own: NCCL is faster where the GPUs see each other
        )

    class Alone(TorchConfig):  # type: ignore[misc]
        backend_cls = NoGroup

    limit = int(run.options.hang_timeout_s) or NO_LIMIT_S
    kind = TorchConfig if meeting_point is None else Alone
    store = "" if meeting_point is None else str(meeting_point)
    return TorchTrainer(
        _work,
        train_loop_config={
            "run": run.model_dump_json(),
            "folder": str(Path.cwd()),
            "inbox": inbox,
            "store": store,
        },
        torch_config=kind(backend="nccl" if on_gpu else "gloo", timeout_s=limit),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=on_gpu, resources_per_worker={"CPU": 0 if on_gpu else 1}
        ),
        run_config=RunConfig(name="train", storage_path=storage),
    )


def _work(config: dict[str, Any]) -> None:
    """One worker: the training of `hqsam.training.run`, what it has to tell put into the inbox."""
    import ray.train.torch

    os.chdir(
        config["folder"]
    )  # Ray changes it; paths of the params may be relative to the repository
    own_code.use_here()  # a node's environment may hold another checkout

    from hqsam.training import loop
    from hqsam.training.run import Throttled
    from hqsam.training.train_run import TrainRun

    # Which of the visible GPUs is this worker's own is known to Ray alone: it need not be that of
    # its local rank.
    os.environ["LOCAL_RANK"] = str(ray.train.torch.get_device().index or 0)
    if config["store"]:
        from hqsam.training.group import STORE
        from hqsam_pipelines.runner.launch import ON_LOOPBACK

        # tells `hqsam.training.group` where the workers of one machine meet: a file, and the
        # loopback interface
        context = ray.train.get_context()
        rank, size = context.get_world_rank(), context.get_world_size()
        place = {"RANK": str(rank), "WORLD_SIZE": str(size), STORE: config["store"]}
        os.environ.update(place | ON_LOOPBACK)
    run, put = TrainRun.model_validate_json(config["run"]), config["inbox"].put
    try:
        progress = Throttled(lambda *told: put(("progress", told)))
        loop.train(run, progress=progress, say=lambda line: put(("say", line)))
    except UserError as error:
        put(("error", error))
        raise


class _Inbox:
    """What the workers tell: a queue in the cluster, emptied by a thread here.

    Attributes:
        queue: `ray.util.queue.Queue` of (word, value).
        error: the first error for a person.
    """

    def __init__(self, progress: Progress) -> None:
        from ray.util.queue import Queue

        self.queue = Queue(actor_options={"num_cpus": 0})
        self.error: UserError | None = None
        self._progress = progress
        self._thread = threading.Thread(target=self._read, daemon=True, name="ray inbox")

    def __enter__(self) -> _Inbox:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
        self.queue.shutdown(force=True)

    def close(self) -> None:
        """Wait until everything that was told has been taken."""
        if self._thread.is_alive():
            self.queue.put(("end", None))
            self._thread.join()

    def _read(self) -> None:
        word = ""
        while word != "end":
            word, value = self.queue.get()
            if word == "progress":
                self._progress(*value)
            elif word == "say":
                say(f"  {value}", err=True)
            elif word == "error":
                self.error = self.error or value
