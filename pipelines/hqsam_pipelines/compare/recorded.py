"""What a revision's dvc.lock and params.yaml say: its outputs, and the parameters that they were made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from hqsam_pipelines.config.strict import Digest, Name, Outline

_WHOLE = ("overlap", "validate", "shard", "augment")
"""Stages that are run once, whatever the benchmarks and models."""


class _Out(Outline):
    path: str
    md5: Digest | None = None


class _LockStage(Outline):
    outs: tuple[_Out, ...] = ()
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Lock(Outline):
    """What is read of a dvc.lock: digests become paths of the cache."""

    stages: dict[str, _LockStage] = Field(default_factory=dict)


class _Benchmark(Outline):
    index: dict[str, Any] = Field(default_factory=dict)
    score: dict[str, Any] = Field(default_factory=dict)


class RunParams(Outline):
    """What is read of the params.yaml of any age."""

    benchmarks: dict[Name, _Benchmark] = Field(default_factory=dict)
    models: dict[Name, dict[str, Any]] = Field(default_factory=dict)


def lock_outputs(lock: Mapping[str, Any]) -> dict[str, str]:
    """Output path to MD5 of every stage in a dvc.lock."""
    stages = lock.get("stages", {})
    outs = [out for stage in stages.values() for out in stage.get("outs", ())]
    return {out["path"]: out["md5"] for out in outs if out.get("md5") is not None}


def lock_params(lock: Mapping[str, Any], runs: set[tuple[str, str]]) -> dict[str, Any]:
    """The values of params.yaml that a dvc.lock records of the stages before the metrics of `runs`, by dotted key.

    A dvc.lock keeps stages that the profile no longer has; those are passed over.
    """
    names = {
        f"{verb}@{benchmark}-{model}" for benchmark, model in runs for verb in ("predict", "score")
    }
    names |= {f"index@{benchmark}" for benchmark, _ in runs} | {
        f"train@{model}" for _, model in runs
    }
    found: dict[str, Any] = {}
    for name, stage in lock.get("stages", {}).items():
        if name in names or name in _WHOLE:
            found |= stage.get("params", {}).get("params.yaml", {})
    return found
