"""report: tables beside the paper's, plots, overlays, the HTML page.

Reads: everything below `reports/metrics/`, `data/` and `models/` that it shows, all params. Writes: `reports/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Build the report of the run."""
    from hqsam_pipelines import report

    return report.build_report(root=job.root, params=job.params, out=job.root / "reports", report=job.report)


STAGE = Stage("report", (), run, imports=("hqsam_pipelines.report", "pandas"))


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
