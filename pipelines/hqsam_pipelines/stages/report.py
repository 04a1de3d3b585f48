"""report: tables beside the paper's, plots, overlays, the HTML page.

Reads: everything below `reports/metrics/`, `data/` and `models/` that it shows, all params. Writes:
`reports/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Build the report of the run."""
    from hqsam_base.terminal import say
    from hqsam_pipelines.report import run as report
    from hqsam_pipelines.runner.last_line import last_line

    built = report.build_report(
        root=job.root, params=job.params, out=job.root / "reports", progress=job.progress
    )
    say(last_line(job.root))
    return built


STAGE = Stage("report", (), run, imports=("hqsam_pipelines.report.run", "pandas"))


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
