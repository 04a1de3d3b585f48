"""Boundary AP on pictures of BIG's size: peak memory, and how time grows with masks, pixels and dilation.

    python benchmarks/metrics/bench_growth.py [--full] [--json FILE]

Time must grow linearly with masks and with pixels, and not with the dilation; peak memory stays under 1 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from workloads import Workload, make_coco

LIMIT_GB = 1.0
_CODE = """
import json, resource, sys, time
from pathlib import Path
from hqsam_metrics.evaluate import score_coco_files
pred, gt, ratio = sys.argv[1:]
best = 1e9
for _ in range(5):
    begin = time.process_time()
    score_coco_files(pred=Path(pred), gt=Path(gt), iou_type="boundary", dilation_ratio=float(ratio))
    best = min(best, time.process_time() - begin)
print(json.dumps([best, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))
"""


def measure(work: Workload, ratio: float) -> tuple[float, float]:
    """Returns processor seconds (best of five) and the peak memory in GB of a process of its own."""
    command = [sys.executable, "-c", _CODE, str(work.dt), str(work.gt), str(ratio)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def main() -> None:
    """Prints the rows and, with --json, writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="16 images instead of 4")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    images = 16 if options.full else 4
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sizes = {"images": images, "gt": 3, "dt": 6}
        base = make_coco(folder, "big", height=2400, width=3200, **sizes)
        cases = {
            "base": (base, 0.02),
            "dilation x 4": (base, 0.08),
            "dilation / 2": (base, 0.01),
            "masks / 2": (make_coco(folder, "half", height=2400, width=3200, images=images // 2, gt=3, dt=6), 0.02),
            "pixels / 4": (make_coco(folder, "small", height=1200, width=1600, **sizes), 0.02),
        }
        found = {name: measure(work, ratio) for name, (work, ratio) in cases.items()}
    seconds, peak = found["base"]
    rows: list[dict[str, Any]] = [
        {"case": name, "cpu_seconds": round(s, 3), "relative": round(s / seconds, 2), "peak_gb": round(gb, 3)}
        for name, (s, gb) in found.items()
    ]
    met = peak <= LIMIT_GB and found["dilation x 4"][0] < 1.5 * seconds
    rows[0]["met"] = met
    for row in rows:
        print(json.dumps(row))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
