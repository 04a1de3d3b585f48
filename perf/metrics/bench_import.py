"""Time to import the metrics, each in a process of its own, best of several.

python -m perf metrics/import
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from perf.table import Row, finish

LIMIT_SECONDS = 0.3
PACKAGE = "import hqsam_metrics"
# With NumPy; told for scale, nothing is promised about it.
FUNCTIONS = "from hqsam_metrics import boundary_band, boundary_iou, mask_iou"


def seconds(statement: str, rounds: int) -> float:
    """The least time that a fresh interpreter takes for `statement`, third-party imports included."""
    code = (
        f"import time; begin = time.perf_counter(); {statement}; print(time.perf_counter() - begin)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        for _ in range(rounds)
    ]
    return min(float(run.stdout) for run in runs)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [
        Row.at_most(f"`{PACKAGE}`", seconds(PACKAGE, options.rounds), LIMIT_SECONDS, "s"),
        Row(f"`{FUNCTIONS}`", f"{seconds(FUNCTIONS, options.rounds):.3f} s"),
    ]
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
