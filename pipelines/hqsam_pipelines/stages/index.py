"""index BENCHMARK: one evaluation set as images, ground truth and prompts in one schema.

Reads: `data/archives/<archive>/`, params `benchmarks.<benchmark>.{kind,archive,index,protocol}`.
Writes: `data/benchmarks/<benchmark>/`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job, out: Path | None = None) -> Any:
    """Extract the benchmark's archive if nobody has yet, and index the benchmark, by default at its usual place."""
    from hqsam_datasets.fetch import extract
    from hqsam_datasets.prepare import index

    data = job.root / "data"
    section = job.params.entry("benchmarks", job.name)
    tree = extract.extracted(data / "archives" / section["archive"], data / "extracted")
    return index.index(
        job.name,
        root=tree,
        out=out or data / "benchmarks" / job.name,
        options=job.params.index(job.name),
        progress=job.progress,
        kind=section["kind"],
        embedded=extract.is_embedded(data / "archives" / section["archive"]),
    )


STAGE = Stage(
    "index", ("benchmarks",), run, imports=("hqsam_datasets.prepare.index", "pyarrow.parquet")
)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
