"""What the data part costs when there is nothing to do: `dvc repro` of its last stages, run again.

    python perf/data/no_op.py [--rounds 3] [--json FILE]

In the repository's root, after `dvc repro shard augment validate`; where these are not up to date,
it says so and measures nothing. The exit status is 1 if the best round takes 5 seconds of wall
time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TARGETS = ("shard", "augment", "validate")
_NOTHING = "up to date"


def repro(*options: str) -> str:
    """`dvc repro` of the data part; what it printed."""
    command = [sys.executable, "-m", "dvc", "repro", *options, *TARGETS]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout


def lap() -> tuple[float, float]:
    """Wall and processor seconds of one run that finds nothing to do."""
    start, before = time.perf_counter(), os.times()
    repro()
    seconds, after = time.perf_counter() - start, os.times()
    return (
        seconds,
        after.children_user + after.children_system - before.children_user - before.children_system,
    )


def measure(rounds: int) -> dict[str, Any]:
    """The best of the rounds, or why there are none."""
    if _NOTHING not in repro("--dry"):
        return {
            "targets": list(TARGETS),
            "not_measured": f"not up to date: run `dvc repro {' '.join(TARGETS)}` first",
        }
    laps = [lap() for _ in range(rounds)]
    return {
        "targets": list(TARGETS),
        "wall_s": round(min(w for w, _ in laps), 2),
        "cpu_s": round(min(c for _, c in laps), 2),
    }


def main() -> int:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.rounds)
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(result.get("wall_s", 0) >= 5)


if __name__ == "__main__":
    sys.exit(main())
