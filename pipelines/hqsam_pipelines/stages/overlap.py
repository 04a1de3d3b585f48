"""overlap: which training images are copies of evaluation images.

Reads: `data/samples/`, `data/benchmarks/`, params `overlap`. Writes: `data/overlap/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Compare every training image with every evaluation image."""
    from hqsam_datasets.overlap import gate

    return gate.find_overlap(
        samples=job.samples(),
        benchmarks=job.benchmarks(),
        out=job.root / "data" / "overlap",
        options=job.params.overlap,
        progress=job.progress,
    )


STAGE = Stage(
    "overlap", (), run, imports=("hqsam_datasets.overlap.gate", "faiss", "pyarrow.parquet")
)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
