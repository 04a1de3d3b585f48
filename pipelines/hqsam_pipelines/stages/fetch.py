"""fetch ARCHIVE: download (or, for `embedded://`, write) one archive's files and verify them.

Reads: params `archives.<archive>`, and `archives.sha256`, which can refuse a file but changes none.
Writes:
`data/archives/<archive>/`, and `archives.sha256` where nobody publishes a digest.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_base.terminal import say
from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Fetch one archive. Resume, mirrors and back-off within one try are the library's; whole tries are repeated here."""
    from hqsam_datasets.fetch import first_use
    from hqsam_datasets.fetch.archive import fetch

    spec = job.params.archive(job.name)
    if spec.licence:
        say(f"{job.name}: licence: {spec.licence}")
    out = job.root / "data" / "archives" / job.name
    return fetch(
        spec,
        out,
        progress=job.progress,
        notice=lambda text: say(f"{job.name}: {text}", lines=True),
        digests=job.root / first_use.FILE,
        others={name: job.params.archive(name) for name in job.params.archives},
    )


STAGE = Stage(
    "fetch", ("archives",), run, imports=("hqsam_datasets.fetch.archive", "numpy"), retries=2
)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
