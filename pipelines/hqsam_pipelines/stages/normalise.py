"""normalise SOURCE: one training source as uniform samples with a manifest and counted rejects.

Reads: `data/archives/<archive>/`, params `sources.<source>`. Writes: `data/samples/<source>/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Extract the source's archive if nobody has yet, and normalise the source."""
    from hqsam_datasets.fetch import extract
    from hqsam_datasets.prepare import normalise

    data = job.root / "data"
    name = job.params.entry("sources", job.name)["archive"]
    tree = extract.extracted(data / "archives" / name, data / "extracted")
    options = job.params.source(job.name)
    return normalise.normalise(
        job.name, root=tree, out=data / "samples" / job.name, options=options, progress=job.progress
    )


STAGE = Stage(
    "normalise", ("sources",), run, imports=("hqsam_datasets.prepare.normalise", "pyarrow.parquet")
)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
