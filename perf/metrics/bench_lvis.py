"""LVIS val size (20k images, 250k annotations, 300 detections an image, synthetic): time and peak memory.

    python -m perf metrics/lvis [--full]

Without --full a fortieth of the images. The peak is that of the scoring process and its workers
together (Linux: their proportional set sizes, looked at up to four times a second).
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

from perf.metrics.workloads import Workload, make_lvis
from perf.table import Row, finish

LIMIT_MINUTES, LIMIT_GB = (
    2.45,
    3.0,
)  # of processor time: half of what it took before compiled kernels
# The memory is looked at four times a second, or less often when that would cost more than a
# twentieth of a core.
INTERVAL_S, SHARE = 0.25, 20
_CODE = """
import json, sys
from pathlib import Path
from hqsam_metrics.scores.lvis import score_lvis_files
pred, gt, kind, workers = sys.argv[1:]
found = score_lvis_files(pred=Path(pred), gt=Path(gt), iou_type=kind, workers=int(workers))
print(json.dumps(found.metrics))
"""


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(one for child in children for one in family(int(child)))]


def proportional_gb(pid: int) -> float:
    """Memory of a process in GB, pages that it shares with n others counted as 1 / n; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1e6


def watched(command: list[str]) -> tuple[float, float, str]:
    """Runs a command; returns seconds, the peak memory of it and its workers together in GB, and its output."""
    begin, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            look = time.process_time()
            peak = max(peak, sum(map(proportional_gb, family(process.pid))))
            time.sleep(max(INTERVAL_S, SHARE * (time.process_time() - look)))
        assert process.stdout is not None
        text = process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - begin, peak, text


def run(work: Workload, iou_type: str, workers: int) -> list[Row]:
    """Runs the command once."""
    seconds, peak, text = watched(
        [sys.executable, "-c", _CODE, str(work.dt), str(work.gt), iou_type, str(workers)]
    )
    size = (work.dt.stat().st_size + work.gt.stat().st_size) / 1e9
    where = (
        f"LVIS, {iou_type}, {work.n_images:,} images, {work.n_masks:,} masks, {size:.2g} GB of "
        f"JSON, {workers} processes"
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (used.ru_utime + used.ru_stime) / 60
    return [
        Row.at_most(
            f"{where}: processor time of all processes",
            spent,
            LIMIT_MINUTES,
            "min",
            before="4.9 min",
        ),
        Row(f"{where}: time", f"{seconds / 60:.1f} min"),
        Row.at_most(f"{where}: peak memory of all processes", peak, LIMIT_GB, "GB"),
        Row(f"{where}: AP", f"{json.loads(text)['AP']:.6f}"),
    ]


def main() -> int:
    """Prints the table; 1 when time or memory is above the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--iou-type", default="boundary", choices=["segm", "boundary"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--keep", type=Path, help="folder for the synthetic files (default: a temporary one)"
    )
    options = parser.parse_args()
    part = 1 if options.full else 40
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        work = make_lvis(folder, images=20_000 // part, annotations=250_000 // part, dets=300)
        rows = run(work, options.iou_type, options.workers)
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
