"""train MODEL: train the HQ head on the frozen base model.

Reads: `data/shards/`, `data/prompts/`, the checkpoint, params `models.<model>`, `train` and `seed`. Writes: `models/<model>/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Train; a run that was stopped goes on where it was."""
    from hqsam.training import loop

    data = job.root / "data"
    return loop.train(
        shards=data / "shards", prompts=data / "prompts", model=job.params.model(job.name),
        options=job.params.train, out=job.root / "models" / job.name, seed=job.params.seed, report=job.report,
    )  # fmt: skip


STAGE = Stage("train", ("models",), run, imports=("torch", "hqsam.training.loop"))


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
