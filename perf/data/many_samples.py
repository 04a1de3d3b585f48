"""A source of 5,000 samples (`--full`: 100,000) through normalise and shard: files that DVC sees, time, memory.

    python perf/data/many_samples.py [--samples 5000] [--full] [--workers 2] [--json FILE]

Pictures are tiny (48 x 32) and few different ones are linked under many names, so that the disk
holds them. Reported: files in the two output folders (what DVC sees), seconds, samples per second,
peak memory of the main process and of its workers.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hqsam_datasets.prepare.normalise import normalise
from hqsam_datasets.prepare.shards import ShardOptions, write_shards
from hqsam_datasets.sources.base import SourceOptions
from perf.data.bench_normalise import link_source, quiet


def measure(n: int, workers: int) -> dict[str, Any]:
    """Run both stages once."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        root = link_source(home, n, 32, 48)
        start = time.perf_counter()
        options = SourceOptions(archive="a", expected=n)
        normalise(
            "ecssd",
            root=root,
            out=home / "samples",
            options=options,
            progress=quiet,
            workers=workers,
        )
        normalised = time.perf_counter() - start
        (home / "exclusions.jsonl").touch()
        write_shards(
            samples={"ecssd": home / "samples"},
            exclusions=home / "exclusions.jsonl",
            out=home / "shards",
            options=ShardOptions(samples_per_shard=4096),
            progress=quiet,
            workers=workers,
        )
        sharded = time.perf_counter() - start - normalised
        files = {
            folder: sum(1 for _ in (home / folder).iterdir()) for folder in ("samples", "shards")
        }
    peak = {
        who: resource.getrusage(code).ru_maxrss // 1024
        for who, code in (
            ("main", resource.RUSAGE_SELF),
            ("largest_worker", resource.RUSAGE_CHILDREN),
        )
    }
    return {
        "samples": n,
        "workers": workers,
        "files": files,
        "normalise_s": round(normalised, 1),
        "shard_s": round(sharded, 1),
        "samples_per_s": round(n / (normalised + sharded), 1),
        "peak_mb": peak,
    }


def main() -> int:
    """Parse the arguments, measure, print; exit status 1 if DVC would see more than tens of files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, help="5,000, or 100,000 with --full")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.samples or (100_000 if arguments.full else 5000), arguments.workers)
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(max(result["files"].values()) >= 100 or max(result["peak_mb"].values()) > 1500)


if __name__ == "__main__":
    sys.exit(main())
