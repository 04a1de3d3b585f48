"""code: which files each stage's code consists of, with their digests. The other stages depend on these instead of on the files.

Reads: the source folders, and params.yaml, which names those files of the seams that are used.
Writes: `data/code/<verb>.json`, path to SHA-256; `data/protocols/<benchmark>.json`, what the
benchmark's key `protocol` stands for.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Write one file for each of the other stages, and one for each benchmark."""
    from hqsam_pipelines.runner import codegraph

    codegraph.write_protocols(job.root, job.root / "data" / "protocols")
    return codegraph.write_digests(job.root, job.root / "data" / "code")


STAGE = Stage("code", (), run, on_server=False)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
