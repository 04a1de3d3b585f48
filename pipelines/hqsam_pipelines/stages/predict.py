"""predict BENCHMARK MODEL: the masks of every system, by default SAM and HQ-SAM, for every prompt of a benchmark.

Reads: `data/benchmarks/<benchmark>/`, `models/<model>/`, the checkpoint, params `predict`,
`benchmarks.<benchmark>.{predict,protocol}`, `models.<model>` and `systems`. Writes:
`data/predictions/<benchmark>-<model>/`. Models with one encoder share `data/encodings/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.config import env
from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Predict all prompts, one image encoding for all systems."""
    from hqsam.prediction import benchmark as predict

    benchmark, model = job.names
    mine = job.params.model(model)
    others = (job.params.model(name) for name in job.params.models if name != model)
    alike = any((o.backbone, o.checkpoint) == (mine.backbone, mine.checkpoint) for o in others)
    return predict.predict(
        benchmark=job.root / "data" / "benchmarks" / benchmark,
        model=mine,
        head=job.root / "models" / model,
        options=job.params.predict(benchmark),
        out=job.root / "data" / "predictions" / f"{benchmark}-{model}",
        progress=job.progress,
        entries=job.params.systems_of(model),
        figures=job.figures.update,
        encodings=job.root / "data" / "encodings" if alike else None,
        leases=env.make_state_dir(job.root) / "devices",
    )


STAGE = Stage(
    "predict",
    ("benchmarks", "models"),
    run,
    imports=("torch", "hqsam.prediction.benchmark", "pyarrow.parquet"),
)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
