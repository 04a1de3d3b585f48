"""fetch ARCHIVE: download (or, for `embedded://`, write) one archive's files and verify them.

Reads: params `archives.<archive>`. Writes: `data/archives/<archive>/`.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Fetch one archive. Resume, mirrors and back-off within one try are the library's; whole tries are repeated here."""
    from hqsam_datasets.fetch.archive import fetch

    spec = job.params.archive(job.name)
    if spec.licence:
        print(f"{job.name}: licence: {spec.licence}", flush=True)
    out = job.root / "data" / "archives" / job.name
    return fetch(spec, out, progress=job.progress, notice=lambda text: print(f"{job.name}: {text}", flush=True))


STAGE = Stage("fetch", ("archives",), run, imports=("hqsam_datasets.fetch.archive", "numpy"), retries=2)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
