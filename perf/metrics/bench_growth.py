"""Boundary AP on pictures of BIG's size: peak memory, and how time grows with masks, pixels and dilation.

    python -m perf metrics/growth [--full]

Time must grow linearly with masks and with pixels, and not with the dilation; peak memory stays
under 1 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from perf.metrics.workloads import Workload, make_coco
from perf.table import Row, finish

LIMIT_GB = 1.0
# How many times the time may grow: linearly with masks and pixels, not with the dilation, and a
# quarter for noise.
GROWTH = {"twice the masks": 2.5, "four times the pixels": 5.0, "four times the dilation": 1.25}
_CODE = """
import json, resource, sys, time
from pathlib import Path
from hqsam_metrics.scores.coco import score_coco_files
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


def cases(folder: Path, images: int) -> dict[str, tuple[Workload, float]]:
    """The workloads: BIG's size, and the same with one thing changed."""
    sizes = {"gt": 3, "dt": 6}
    base = make_coco(folder, "big", images=images, height=2400, width=3200, **sizes)
    return {
        "base": (base, 0.02),
        "narrow": (base, 0.005),
        "half": (
            make_coco(folder, "half", images=images // 2, height=2400, width=3200, **sizes),
            0.02,
        ),
        "small": (
            make_coco(folder, "small", images=images, height=1200, width=1600, **sizes),
            0.02,
        ),
    }


def table(found: dict[str, tuple[float, float]], masks: int) -> list[Row]:
    """Processor seconds and peak of the base, and how time grows."""
    seconds, peak = found["base"]
    where = f"2400x3200, {masks} masks"
    rows = [
        Row(f"{where}: processor time", f"{seconds:.2f} s"),
        Row.at_most(f"{where}: peak memory", peak, LIMIT_GB, "GB"),
    ]
    grows = {
        "twice the masks": "half",
        "four times the pixels": "small",
        "four times the dilation": "narrow",
    }
    for name, case in grows.items():
        rows.append(
            Row.at_most(f"{where}: {name} cost", seconds / found[case][0], GROWTH[name], "x")
        )
    return rows


def main() -> int:
    """Prints the table; 1 when time or memory grows too fast."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="16 images instead of 4")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    images = 16 if options.full else 4
    with tempfile.TemporaryDirectory() as temporary:
        found = {name: measure(*case) for name, case in cases(Path(temporary), images).items()}
    return finish(table(found, 9 * images), options.json, measured=found)


if __name__ == "__main__":
    sys.exit(main())
