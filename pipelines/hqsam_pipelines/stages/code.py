"""code: which files each stage's code consists of, with their digests. The other stages depend on these instead of on the files.

Reads: the source folders, params.yaml, which names those files of the seams that are used, and
`inputs/`, links to what else it names. Writes: `data/code/<verb>.json`, path to SHA-256;
`data/protocols/<benchmark>.json`, what the benchmark's key `protocol` stands for;
`data/inputs/<benchmark>.json` and `<benchmark>-<model>.json`, digests of files outside the repository;
`data/samples/sources.json`, the names of the training sources, of which a profile that trains nothing has
none.
"""

from __future__ import annotations

import sys
from typing import Any

from hqsam_pipelines.runner.stage import Job, Stage, main


def run(job: Job) -> Any:
    """Write one file for each of the other stages, two kinds for each benchmark, and the list of sources."""
    from hqsam_base.atomic import write_json
    from hqsam_pipelines.config import inputs
    from hqsam_pipelines.runner import codegraph

    inputs.write_digests(job.params, job.root)
    codegraph.write_protocols(job.root, job.root / "data" / "protocols")
    # DVC's stages depend on the folder as a whole, so it has to exist without a source, too.
    listed = {"sources": sorted(job.params.sources)}
    write_json(job.root / "data" / "samples" / "sources.json", listed)
    return codegraph.write_digests(job.root, job.root / "data" / "code")


STAGE = Stage("code", (), run, on_server=False)


if __name__ == "__main__":
    sys.exit(main(STAGE, sys.argv[1:]))
