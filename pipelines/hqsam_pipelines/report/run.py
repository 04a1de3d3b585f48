"""The report stage's entry point: tables beside the paper's, plots, pictures and one HTML page.

Light at import; the work is in `hqsam_pipelines.report.build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hqsam_base.progress import Progress, silent


def build_report(
    *, root: Path, params: Mapping[str, Any] | Any, out: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Writes the report of the last run.

    Args:
        root: the repository: ``reports/metrics``, ``data`` and ``models`` are read below it.
        params: the sections of ``params.yaml`` (a mapping, or the validated `Params`).
        out: folder for ``metrics.json``, ``report.html``, ``tables/``, ``plots/``, ``figures/``.
        progress: called with (done, total, what).

    Returns:
        ``{"n_benchmarks", "n_pictures", "bytes"}``.

    Raises:
        UserError: there are no metrics, or a file that they need is missing or damaged.
    """
    from hqsam_pipelines.report.build import build

    return build(root=root, params=params, out=out, progress=progress or silent)


def print_summary(root: Path) -> None:
    """Prints the result table of the last report and where the page lies.

    Raises:
        UserError: there is no report yet.
    """
    from hqsam_pipelines.report.summary import show

    show(root)
