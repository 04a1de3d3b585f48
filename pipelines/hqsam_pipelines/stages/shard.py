"""shard: the training set as WebDataset shards, without the samples that the overlap gate excludes.

Reads: `data/samples/`, `data/overlap/exclusions.jsonl`, params `shard`; waits for `validate`.
Writes: `data/shards/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Write the shards."""
    from hqsam_datasets.prepare import shards

    data = job.root / "data"
    return shards.write_shards(
        samples=job.samples(),
        exclusions=data / "overlap" / "exclusions.jsonl",
        out=data / "shards",
        options=job.params.shard,
        progress=job.progress,
    )


STAGE = Stage("shard", (), run, imports=("hqsam_datasets.prepare.shards", "pyarrow.parquet"))


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
