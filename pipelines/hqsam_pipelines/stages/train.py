"""train MODEL: train the HQ head on the frozen base model.

Reads: `data/shards/`, `data/prompts/`, the checkpoint, params `models.<model>`, `train` and `seed`.
Writes: `models/<model>/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.config import env
from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Train; a run that was stopped goes on where it was."""
    # The launcher starts this program, here or in children: its code is this stage's.
    import hqsam.training.run  # noqa: F401
    from hqsam.training.train_run import TrainRun
    from hqsam_pipelines.runner import launch

    data, params = job.root / "data", job.params
    train_run = TrainRun(
        shards=data / "shards",
        prompts=data / "prompts",
        model=params.model(job.name),
        options=params.train(job.name),
        out=job.root / "models" / job.name,
        seed=params.training_seed(job.name),
    )
    leases = env.make_state_dir(job.root) / "devices"
    return launch.train(train_run, job.progress, leases=leases)


STAGE = Stage("train", ("models",), run, imports=("torch", "hqsam.training.loop"))


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
