"""The programs that are compared: each takes annotation and result file and returns AP, AP50, AP75."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hqsam_metrics.reference import coco_reference
from hqsam_metrics.scores.coco import score_coco_files

Numbers = tuple[float, float, float]
Program = Callable[[Path, Path, float], Numbers]


def ours(workers: int) -> Program:
    """This package with that many processes."""

    def run(gt: Path, dt: Path, ratio: float) -> Numbers:
        found = score_coco_files(
            pred=dt, gt=gt, iou_type="boundary", dilation_ratio=ratio, workers=workers
        ).metrics
        return tuple(
            -1.0 if found[name] is None else float(found[name]) for name in ("AP", "AP50", "AP75")
        )  # type: ignore[arg-type, return-value]

    return run


def original(gt: Path, dt: Path, ratio: float) -> Numbers:
    """The original algorithm: whole-picture bands by repeated 3x3 erosion, COCOeval, one process."""
    found = coco_reference(gt, json.loads(dt.read_bytes()), dilation_ratio=ratio)
    return found["AP"], found["AP50"], found["AP75"]


def faster_coco_eval(gt: Path, dt: Path, ratio: float) -> Numbers:
    """faster-coco-eval's boundary mode, one thread."""
    from faster_coco_eval import COCO, COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(gt))
        found = truth.loadRes(str(dt))
        program = COCOeval_faster(
            truth, found, iouType="boundary", boundary_dilation_ratio=ratio, boundary_cpu_count=1
        )
        program.evaluate()
        program.accumulate()
        program.summarize()
    return tuple(map(float, program.stats[:3]))  # type: ignore[return-value]


def vernier(gt: Path, dt: Path, ratio: float) -> Numbers:
    """Vernier 0.5.4, strict, one thread. It wants a `bbox`: [0, 0, area, 1] gives COCO's area rule."""
    from vernier.instance import Boundary, CocoDataset, Evaluator

    program = Evaluator(iou=Boundary(dilation_ratio=ratio), parity_mode="strict")
    data = dt.with_suffix(".vernier.json")
    summary = program.evaluate(
        CocoDataset.from_json(gt.read_bytes()), data.read_bytes(), num_threads=1
    )
    return tuple(map(float, np.asarray(summary.stats)[:3]))  # type: ignore[return-value]


def prepare_vernier(dt: Path) -> None:
    """Writes the copy of the results with boxes that carry the mask area (not part of what is timed)."""
    from pycocotools import mask as coco_mask

    out = dt.with_suffix(".vernier.json")
    if not out.exists():
        rows = json.loads(dt.read_bytes())
        for row in rows:
            row["bbox"] = [0, 0, float(coco_mask.area(row["segmentation"])), 1]
        out.write_text(json.dumps(rows))
