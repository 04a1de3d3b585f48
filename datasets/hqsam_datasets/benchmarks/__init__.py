"""Evaluation sets: one adapter file each, found by its name in ``params.yaml``."""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from hqsam_datasets.benchmarks.base import Benchmark
from hqsam_datasets.errors import UserError

_NOT_ADAPTERS = {"base", "cocolike", "common", "results", "ytvislike"}


def names() -> list[str]:
    """Every evaluation set that has an adapter, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_ADAPTERS)


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
    return cast(Benchmark, importlib.import_module(f"{__name__}.{name}").BENCHMARK)
