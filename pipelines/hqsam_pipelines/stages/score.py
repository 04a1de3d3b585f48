"""score BENCHMARK MODEL: the benchmark's metrics, and its per-instance table.

Reads: `data/benchmarks/<benchmark>/`, `data/predictions/<benchmark>-<model>/`, params
`benchmarks.<benchmark>.{score,protocol}`. Writes: `reports/metrics/<benchmark>-<model>.json`,
`data/scores/<benchmark>-<model>/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Score all systems under all prompt sets."""
    from hqsam_metrics import benchmark as scoring

    benchmark, model = job.names
    name = f"{benchmark}-{model}"
    data = job.root / "data"
    return scoring.score_benchmark(
        benchmark=data / "benchmarks" / benchmark,
        predictions=data / "predictions" / name,
        options=job.params.score(benchmark),
        out_json=job.root / "reports" / "metrics" / f"{name}.json",
        out=data / "scores" / name,
        progress=job.progress,
    )


STAGE = Stage(
    "score", ("benchmarks", "models"), run, imports=("hqsam_metrics.benchmark", "pyarrow.parquet")
)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
