"""code: which files each stage's code consists of, with their digests. The other stages depend on these instead of on the files.

Reads: the source folders, params.yaml, which names those files of the seams that are used, and
`inputs/`, links to what else it names. Writes: `data/code/<verb>.json`, path to SHA-256;
`data/protocols/<benchmark>.json`, what the benchmark's key `protocol` stands for;
`data/inputs/<benchmark>.json` and `<benchmark>-<model>.json`, digests of files outside the repository.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Write one file for each of the other stages, and two kinds for each benchmark."""
    from hqsam_pipelines.config import inputs
    from hqsam_pipelines.runner import codegraph

    inputs.write_digests(job.params, job.root)
    codegraph.write_protocols(job.root, job.root / "data" / "protocols")
    return codegraph.write_digests(job.root, job.root / "data" / "code")


STAGE = Stage("code", (), run, on_server=False)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
