"""Processor time of the test suite, of this checkout beside another revision's: `python -m perf.suite [REVISION]`.

Wall time says little on a machine that others use; this counts user and system time of pytest and
of everything that it starts, servers that outlive their tests included. Without a revision this
checkout alone is measured. `--only WORDS` measures a part (`--only tests/metrics`); the revision is
checked out into a temporary folder and run with the same interpreter.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FOLDERS = (".", "datasets", "metrics", "pipelines")
_PR_SET_CHILD_SUBREAPER = 36  # of <sys/prctl.h>


def used() -> float:
    """Seconds of processor time of all children that have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def measure(root: Path, words: list[str]) -> float:
    """Run the tests of a checkout in one process; seconds of processor time until everything that they started has ended."""
    paths = os.pathsep.join(str(root / folder) for folder in PACKAGE_FOLDERS)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    before = used()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", *words], cwd=root, env=environment
    )
    with contextlib.suppress(ChildProcessError):
        while True:
            # pytest, and orphans as they end: they are this process's children, and tests ask whether they are gone
            os.wait()
    process.returncode = 0
    return used() - before


def main() -> int:
    """Measure, and print the seconds and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", nargs="?", help="what to compare with")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="arguments of pytest")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    ours = measure(ROOT, options.only)
    print(f"this checkout: {ours:.1f} s of processor time")
    if options.revision:
        with tempfile.TemporaryDirectory() as folder:
            other = Path(folder) / "other"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(other)], check=True)
            subprocess.run(["git", "checkout", "--quiet", options.revision], cwd=other, check=True)
            theirs = measure(other, options.only)
        print(f"{options.revision}: {theirs:.1f} s of processor time; ratio {ours / theirs:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
