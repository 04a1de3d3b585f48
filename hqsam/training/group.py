"""The processes that train together: one, or those that torchrun (or Ray) started.

A process knows its place from the environment alone (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`), as
torchrun sets it. Without it there is no process group and nothing to wait for. On one machine the
processes meet through the file `HQSAM_TRAIN_STORE` and talk over the loopback interface; on
several, through torchrun's `MASTER_ADDR` and `MASTER_PORT`, where nobody is asked who he is
(docs/training.md).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hqsam_base.errors import UserError

STORE = "HQSAM_TRAIN_STORE"
"""The variable that names the file."""


@dataclass(frozen=True)
class Group:
    """This process's place among those that train.

    Attributes:
        rank: its number.
        size: how many there are.
        device: where it computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def sum_(self, flat: Tensor) -> None:
        """Replace a tensor by its sum over the processes: the same bits in each of them."""
        if self.size > 1:
            dist.all_reduce(flat)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes (same shape, CPU) in the order of their ranks."""
        if self.size == 1:
            return [tensor]
        mine = tensor.to(self.device)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine)
        return [t.cpu() for t in found]

    def wait(self) -> None:
        """Return when all processes are here."""
        self.gather(torch.zeros(1))


def device_of(wanted: str) -> torch.device:
    """The device of this process.

    Args:
        wanted: `auto`, `cpu` or `cuda` (`train.device`).

    Raises:
        UserError: a GPU is asked for and there is none, or none for this process.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise UserError(
            "torch finds no CUDA device", key="train.device", cure="set it to auto or cpu"
        )
    if wanted == "cpu" or not there:
        return torch.device("cpu")
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise UserError(
            f"process {number} of this machine has no GPU of its own: there are {count}",
            key="train.processes",
            cure="start one process per GPU (train.processes: 0)",
        )
    return torch.device("cuda", number)


@contextlib.contextmanager
def joined(device: torch.device, *, timeout_s: float) -> Iterator[Group]:
    """The group of the environment; alone where there is none.

    Args:
        device: of this process; GPUs talk through NCCL, CPUs through gloo.
        timeout_s: after which a watcher is going to end a run without progress; 0: there is none.
            Collective operations wait longer, so that the watcher can still print where they are.
    """
    if dist.is_initialized():  # by whoever started us, e.g. Ray
        yield Group(dist.get_rank(), dist.get_world_size(), device)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    limit = timedelta(seconds=60 + 2 * timeout_s) if timeout_s else None
    meeting: dict[str, Any] = {}  # by default torchrun's port, else a file of this user
    if file := os.environ.get(STORE):
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = dist.FileStore(file, size)  # type: ignore[attr-defined]
        meeting = {"store": store, "rank": rank, "world_size": size}
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=limit, **meeting)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
