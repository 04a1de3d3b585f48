"""Evaluation sets: one adapter file each, found by its name in ``params.yaml``."""

from __future__ import annotations

from hqsam_datasets.benchmarks.base import Benchmark
from hqsam_datasets.errors import UserError
from hqsam_datasets.seam import Seam

_SEAM = Seam(
    package=__name__,
    what="benchmark",
    constant="BENCHMARK",
    kind=Benchmark,  # type: ignore[type-abstract]
    helpers=frozenset({"base", "cocolike", "common", "results", "ytvislike"}),
)
names = _SEAM.names


def load(name: str) -> Benchmark:
    """The adapter ``benchmarks/<name>.py``.

    Raises:
        UserError: there is no such file; the message lists what exists.
    """
    if name not in names():
        raise UserError(
            f"unknown benchmark {name!r}; there are {', '.join(names())}",
            file="params.yaml",
            key=f"benchmarks.{name}",
            cure="correct the name or add datasets/hqsam_datasets/benchmarks/<name>.py",
        )
    return _SEAM.load(name)
