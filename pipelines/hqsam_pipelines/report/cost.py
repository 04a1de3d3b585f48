"""What HQ-SAM costs over SAM, measured, beside the paper's Tables 1 and 10.

The measurement is committed (``data/model_cost.json``, made by ``perf/model/bench_cost.py``): times
of the machine that builds a report would change the report's bytes from run to run.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, cast

from hqsam_pipelines.report import paper
from hqsam_pipelines.report.paper import System
from hqsam_pipelines.report.tables import csv_text, number

COLUMNS = (
    "backbone",
    "system",
    "learnable_parameters",
    "total_parameters",
    "learnable_MiB",
    "total_MiB",
    "fps",
    "memory_GB",
    "paper_learnable_MiB",
    "paper_total_MiB",
    "paper_fps",
    "paper_memory_GB",
    "comparable",
)

MIB_A_PARAMETER = 4 / (1 << 20)
"""Mebibytes of a float32 parameter: the unit in which the paper counts parameters."""


@dataclass(frozen=True)
class CostRow:
    """One system on one backbone.

    Attributes:
        backbone: Its name.
        system: ``SAM`` or ``HQ-SAM``.
        learnable: Parameters that training moves (all, for SAM).
        total: All parameters.
        fps: Images a second, one box each.
        peak_mb: Peak resident memory of the process, MB.
    """

    backbone: str
    system: System
    learnable: int
    total: int
    fps: float
    peak_mb: int

    def ours(self) -> tuple[float, float, float, float]:
        """Learnable and total parameters in MiB, images a second, memory in GB."""
        return (
            self.learnable * MIB_A_PARAMETER,
            self.total * MIB_A_PARAMETER,
            self.fps,
            self.peak_mb / 1000,
        )

    def papers(self) -> tuple[float | None, ...]:
        """The paper's values of the same four."""
        names = ("learnable_MiB", "total_MiB", "fps", "memory_GB")
        return tuple(paper.cost(self.system, self.backbone, name) for name in names)


@functools.cache
def _measured() -> dict[str, Any]:
    text = (
        resources.files("hqsam_pipelines.report")
        .joinpath("data/model_cost.json")
        .read_text(encoding="utf-8")
    )
    return cast(dict[str, Any], json.loads(text))


def rows() -> list[CostRow]:
    """The measurement, backbone by backbone, SAM first."""
    return [CostRow(**row) for row in _measured()["rows"]]


def cost_csv() -> str:
    """The table as CSV with the columns `COLUMNS`."""
    lines = []
    for row in rows():
        learnable, total, fps, memory = row.ours()
        own = [row.backbone, row.system, str(row.learnable), str(row.total)]
        ours = [number(learnable), number(total), f"{fps:.4g}", number(memory)]
        papers = [number(v, 1) for v in row.papers()]
        lines.append([*own, *ours, *papers, "same parameters; other machine (a processor)"])
    return csv_text(COLUMNS, lines)


def cost_context() -> dict[str, Any]:
    """What the page shows: the machine, and a line per system with our value and the paper's of each quantity."""
    lines = []
    for row in rows():
        learnable, total, fps, memory = row.ours()
        texts = [number(learnable, 1), number(total, 1), f"{fps:#.3g}", number(memory, 2)]
        pairs = zip(texts, ("–" if v is None else f"{v:g}" for v in row.papers()), strict=True)
        name = paper.system_name(row.system, row.backbone)
        first = row.system == "SAM"
        lines.append(
            {
                "backbone": row.backbone,
                "system": name,
                "first": first,
                "ours": not first,
                "cells": list(pairs),
            }
        )
    return {"machine": _measured()["machine"], "command": _measured()["command"], "lines": lines}
