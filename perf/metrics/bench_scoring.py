"""Scoring result files: this build against an earlier one and against vernier, in whole processes that take turns.

    python -m perf metrics/scoring [--full|--quick] [--before REVISION] [--keep FOLDER]

One thread each, boundary AP at 0.02; processor time from the start of the interpreter to its end, so
imports count, also the compiler's. --full adds a tenth of LVIS val's size (600,000 detections) and
more rounds; its memory at the whole size is bench_lvis's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

from perf.metrics.programs import prepare_vernier
from perf.metrics.workloads import Workload, make_coco, make_lvis
from perf.revisions import BEFORE, ROOT, Cost, checkout, cost
from perf.table import Row, finish

OURS = """
import json, sys
from pathlib import Path
from hqsam_metrics.scores.coco import score_coco_files
from hqsam_metrics.scores.lvis import score_lvis_files
gt, dt, kind = sys.argv[1:]
score = score_lvis_files if kind == "lvis" else score_coco_files
found = score(pred=Path(dt), gt=Path(gt), iou_type="boundary", dilation_ratio=0.02).metrics
print(json.dumps([found[name] for name in ("AP", "AP50", "AP75")]))
"""
VERNIER = """
import json, sys
from pathlib import Path
from vernier.instance import Boundary, CocoDataset, Evaluator
gt, dt = (Path(name).read_bytes() for name in sys.argv[1:3])
program = Evaluator(iou=Boundary(dilation_ratio=0.02), parity_mode="strict")
found = program.evaluate(CocoDataset.from_json(gt), dt, num_threads=1)
print(json.dumps([float(value) for value in found.stats[:3]]))
"""
HELP = """
import sys
from hqsam_pipelines.cli import main
sys.argv = ["hqsam", "score", "--help"]
try:
    main()
except SystemExit:
    pass
heavy = {"numpy", "numba", "llvmlite", "cv2", "pycocotools"} & set(sys.modules)
assert not heavy, heavy
"""
# What is promised: workload -> program -> how many times our processor time its own must be.
TARGETS = {
    "coco-200": {"before": 2.2, "vernier": 2.0},
    # Here the start of the interpreter is most of it; bench_boundary_ap compares the work alone.
    "coco-9": {"before": 0.95, "vernier": 1.4},
    "lvis": {"before": 2.0},
}
EQUAL = 1e-9


def run(work: Workload, before: Path, rounds: int) -> dict[str, list[Cost]]:
    """Runs every program in turn."""
    kind = work.name.partition("-")[0]
    words = ["-c", OURS, str(work.gt), str(work.dt), kind]
    found: dict[str, list[Cost]] = {"before": [], "ours": [], "ours, uncompiled": []}
    for _ in range(rounds):
        found["before"].append(cost(before, words))
        found["ours"].append(cost(ROOT, words, HQSAM_COMPILED=""))
        found["ours, uncompiled"].append(cost(ROOT, words, HQSAM_COMPILED="0"))
        if kind == "coco" and importlib.util.find_spec("vernier"):
            theirs = str(work.dt.with_suffix(".vernier.json"))
            more = cost(ROOT, ["-c", VERNIER, str(work.gt), theirs])
            found.setdefault("vernier", []).append(more)
    return found


def table(work: Workload, found: dict[str, list[Cost]]) -> list[Row]:
    """The rows of one workload."""
    where = f"scoring, {work.name}: {work.n_images:,} images, {work.n_masks:,} masks"
    seconds = {name: median(one.processor for one in costs) for name, costs in found.items()}
    told = {name: f"{value:.2f} s" for name, value in seconds.items()}
    rows = [Row(f"{where}: without compiled kernels", told["ours, uncompiled"])]
    for name, target in TARGETS["lvis" if "lvis" in work.name else work.name].items():
        if name in seconds:
            side = {"before": told[name]} if name == "before" else {"peer": f"{name}: {told[name]}"}
            what = f"{where}: as fast as {name}"
            ratio = seconds[name] / seconds["ours"]
            rows.append(Row.at_least(what, ratio, target, now=told["ours"], **side))
    values = {name: json.loads(costs[0].output) for name, costs in found.items()}
    worst = max(
        abs(a - b) for one in values.values() for a, b in zip(one, values["ours"], strict=True)
    )
    return [
        *rows,
        Row.at_most(f"{where}: largest difference of an AP", worst, EQUAL, ""),
    ]


def main() -> int:
    """Prints the table; 1 when a promise is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true", help="150 and 100 images")
    parser.add_argument("--before", default=BEFORE, metavar="REVISION")
    parser.add_argument("--rounds", type=int, default=0, help="default: 3, with --full 5")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the synthetic files")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.full else 3)
    print(cost(ROOT, ["-m", "hqsam_base.compiled"]).output)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary, checkout(options.before) as before:
        folder = options.keep or Path(temporary)
        size = {"height": 480, "width": 640}
        many, few = (150, 100) if options.quick else (500, 400)
        works = [
            make_coco(folder, "coco-200", images=many, gt=13, dt=200, seed=3, **size),
            make_coco(folder, "coco-9", images=few, gt=9, dt=9, **size),
        ]
        for work in works:
            prepare_vernier(work.dt)
        if options.full:
            works.append(make_lvis(folder, images=2000, annotations=25_000, dets=300))
        for work in works:
            rows += table(
                work, run(work, before, min(rounds, 2) if "lvis" in work.name else rounds)
            )
        starts = {
            name: min(cost(root, ["-c", HELP]).processor for _ in range(5))
            for name, root in (("before", before), ("ours", ROOT))
        }
    what = "hqsam score --help, times that of before, nothing heavy imported"
    told = f"{starts['before']:.2f} s"
    rows.append(Row.at_most(what, starts["ours"] / starts["before"], 1.1, "x", before=told))
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
