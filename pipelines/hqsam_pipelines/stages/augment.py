"""augment: prompts, noisy masks and the view plan of every training sample.

Reads: `data/shards/`, params `augment` and `seed`. Writes: `data/prompts/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Write one prompt shard per training shard."""
    from hqsam_datasets.prepare import augment

    data = job.root / "data"
    return augment.write_prompts(
        shards=data / "shards",
        out=data / "prompts",
        options=job.params.augment,
        seed=job.params.seed,
        progress=job.progress,
    )


STAGE = Stage("augment", (), run, imports=("hqsam_datasets.prepare.augment", "cv2"))


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
