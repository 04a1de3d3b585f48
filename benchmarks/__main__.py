"""`make bench`: every benchmark of this folder, one after the other; the tables go to the terminal, JSON to a folder.

    python -m benchmarks [--full] [--out FOLDER] [NAME ...]

A benchmark is a script `bench_<name>.py` or `overlap_<name>.py` that takes `--json FILE`. Ratios are made in one run on the same
machine; a benchmark that misses its target, or fails, makes the exit status 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_RUN = {"overlap_folders"}  # a helper of the others


def scripts() -> dict[str, Path]:
    """Benchmark name to script."""
    found = [*HERE.rglob("bench_*.py"), *HERE.rglob("overlap_*.py")]
    return {p.stem.removeprefix("bench_"): p for p in sorted(found) if p.stem not in NOT_RUN}


def main() -> int:
    """Run them; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(scripts())}")
    parser.add_argument("--full", action="store_true", help="the sizes of the promises (long)")
    parser.add_argument("--out", type=Path, default=Path(".bench"), help="folder for the JSON files")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - scripts().keys())
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; there are {', '.join(scripts())}")
    options.out.mkdir(parents=True, exist_ok=True)
    failed = [name for name in options.names or scripts() if not _run(name, options.out, full=options.full)]
    if failed:
        print(f"missed or failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, out: Path, *, full: bool) -> bool:
    script = scripts()[name]
    print(f"\n== {name}", flush=True)
    command = [sys.executable, str(script), "--json", str(out / f"{name}.json")]
    if full and "--full" in script.read_text():
        command.append("--full")
    paths = [str(script.parent), *(str(HERE.parent / p) for p in ("", "datasets", "metrics", "pipelines"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
