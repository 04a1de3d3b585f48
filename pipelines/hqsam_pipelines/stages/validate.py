"""validate: the quality gate. A failing expectation stops the pipeline.

Reads: the manifests under `data/samples/` and `data/benchmarks/`, params `quality`. Writes:
`data/validation/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Check every manifest with Great Expectations."""
    from hqsam_datasets.quality import gate

    return gate.validate(
        samples=job.samples(),
        benchmarks=job.benchmarks(),
        out=job.root / "data" / "validation",
        options=job.params.quality,
        progress=job.progress,
    )


STAGE = Stage(
    "validate", (), run, imports=("hqsam_datasets.quality.gate", "great_expectations", "pandas")
)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
