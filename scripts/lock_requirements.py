"""Write requirements.lock: every package of the `dev` install, pinned with the SHA-256 of the file that pip would install here.

    python scripts/lock_requirements.py          # asks your package index; nothing is installed

The versions are those of constraints.txt. The digests are those of this machine's files: Linux,
this Python, and the build of torch that the index offers here. Another platform, another Python, or
torch's CUDA build has other files: run this there, and keep that lock.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
HEAD = """\
# Written by scripts/lock_requirements.py for Linux (x86-64), Python 3.11 and torch's CPU build. With it:
#   pip install --require-hashes --no-deps -r requirements.lock
#   pip install --no-deps --no-build-isolation -e .
# docs/ci.md says how to refresh it, for a GPU machine, too.
"""


def main() -> int:
    """Resolve, and write the lock. Returns the exit status."""
    found = [*resolved(f"{ROOT}[dev]", "setuptools>=77"), *resolved("--no-deps", "lvis")]
    lines = dict(
        sorted(map(pinned, (entry for entry in found if "archive_info" in entry["download_info"])))
    )
    LOCK.write_text(HEAD + "".join(lines.values()), encoding="utf-8")
    print(f"{len(lines)} packages in {LOCK}")
    return 0


def resolved(*wanted: str) -> list[dict[str, Any]]:
    """What pip would install on a bare machine, under constraints.txt: entries of its report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        limits = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([sys.executable, "-m", "pip", *words, *limits, *wanted], check=True)
        entries: list[dict[str, Any]] = json.loads(report.read_bytes())["install"]
    return entries


def pinned(entry: dict[str, Any]) -> tuple[str, str]:
    """A package's normalised name and its lines of the lock; a local label (`+cpu`) stays out of the version."""
    name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
    version = entry["metadata"]["version"].partition("+")[0]
    digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
    return name, f"{name}=={version} \\\n    --hash=sha256:{digest}\n"


if __name__ == "__main__":
    sys.exit(main())
