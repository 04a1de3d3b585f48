"""LVIS val size (20k images, 250k annotations, 300 detections an image, synthetic): time and peak memory.

    python benchmarks/metrics/bench_lvis.py [--full] [--iou-type boundary] [--workers 2] [--json FILE]

Without --full a fortieth of the images. The command runs in a process of its own, so that the peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workloads import Workload, make_lvis

LIMIT_SECONDS, LIMIT_GB = 15 * 60, 12.0
_CODE = """
import json, sys
from pathlib import Path
from hqsam_metrics.evaluate import score_lvis_files
pred, gt, kind, workers = sys.argv[1:]
found = score_lvis_files(pred=Path(pred), gt=Path(gt), iou_type=kind, workers=int(workers))
print(json.dumps(found.metrics))
"""


def run(work: Workload, iou_type: str, workers: int) -> dict[str, Any]:
    """Runs the command once."""
    command = [sys.executable, "-c", _CODE, str(work.dt), str(work.gt), iou_type, str(workers)]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    # Of the largest process: workers share the parent's columns by fork.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {
        "workload": work.name,
        "iou_type": iou_type,
        "workers": workers,
        "gb_of_files": round((work.dt.stat().st_size + work.gt.stat().st_size) / 1e9, 3),
        "seconds": round(seconds, 1),
        "peak_gb": round(peak, 2),
        "AP": json.loads(done.stdout)["AP"],
        "met": seconds <= LIMIT_SECONDS and peak <= LIMIT_GB,
    }


def main() -> None:
    """Prints the row and, with --json, writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--iou-type", default="boundary", choices=["segm", "boundary"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the synthetic files (default: a temporary one)")
    options = parser.parse_args()
    part = 1 if options.full else 40
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        work = make_lvis(folder, images=20_000 // part, annotations=250_000 // part, dets=300)
        row = run(work, options.iou_type, options.workers)
    print(json.dumps(row))
    if options.json:
        options.json.write_text(json.dumps([row], indent=1) + "\n")


if __name__ == "__main__":
    main()
