"""The report stage's entry point: tables beside the paper's, plots, pictures and one HTML page.

Light at import (every stage reads the options through `params`); the work is in ``report_build``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, le=48)]
Progress = Callable[[int, int, str], None]


class ReportOptions(BaseModel):
    """Section ``report`` of ``params.yaml``.

    Attributes:
        best, worst, improved, worsened: how many pictures of each kind; each kind is spread over the benchmarks.
        typical: show for each benchmark the instance whose gain over SAM is the median.
        hero: rows of ``figures/hero.png``.
        panel: width and height of a panel in pixels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    best: Count = 4
    worst: Count = 4
    improved: Count = 4
    worsened: Count = 4
    typical: bool = True
    hero: Annotated[int, Field(ge=0, le=8)] = 4
    panel: Annotated[int, Field(ge=96, le=640)] = 208


def build_report(
    *, root: Path, params: Mapping[str, Any] | Any, out: Path, report: Progress | None = None
) -> dict[str, Any]:
    """Writes the report of the last run.

    Args:
        root: the repository: ``reports/metrics``, ``data`` and ``models`` are read below it.
        params: the sections of ``params.yaml`` (a mapping, or the validated `Params`).
        out: folder for ``metrics.json``, ``report.html``, ``tables/``, ``plots/``, ``figures/``.
        report: called with (done, total, what).

    Returns:
        ``{"n_benchmarks", "n_pictures", "bytes"}``.

    Raises:
        UserError: there are no metrics, or a file that they need is missing or damaged.
    """
    from hqsam_pipelines.report_build import build

    return build(root=root, params=params, out=out, report=report or _silent)


def _silent(done: int, total: int, what: str) -> None:
    """Reports nothing."""


def print_summary(root: Path) -> None:
    """Prints the result table of the last report and where the page lies.

    Raises:
        UserError: there is no report yet.
    """
    from hqsam_pipelines.report_summary import show

    show(root)
