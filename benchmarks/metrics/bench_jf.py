"""J&F on 480p sequences against the official formulation: skimage's disk dilation of both boundaries, whole frames.

python benchmarks/metrics/bench_jf.py [--full] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from hqsam_metrics.davis import find_sequences, score_folders
from hqsam_metrics.jf import bound_pixels
from hqsam_metrics.png import read_index_png
from skimage.morphology import dilation as grey_dilation
from skimage.morphology import disk, isotropic_dilation
from workloads import make_davis

TARGET = 5.0


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """The thinned boundary of the official program: pixels unlike their right, lower or diagonal neighbour."""
    right, below, diagonal = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    diagonal[:-1, :-1] = mask[1:, 1:]
    out = mask ^ right | mask ^ below | mask ^ diagonal
    out[-1] = mask[-1] ^ right[-1]
    out[:, -1] = mask[:, -1] ^ below[:, -1]
    out[-1, -1] = False
    return out


def official(pred: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """J and F of one object in one frame, as the DAVIS program computes them."""
    union = np.count_nonzero(pred | target)
    j = np.count_nonzero(pred & target) / union if union else 1.0
    a, b = boundary_map(pred), boundary_map(target)
    element = disk(bound_pixels(*pred.shape))
    near_a, near_b = (grey_dilation(c.astype(np.uint8), element).astype(bool) for c in (a, b))
    n_a, n_b = a.sum(), b.sum()
    if not n_a or not n_b:
        return j, float(n_a == n_b)
    precision, recall = (a & near_b).sum() / n_a, (b & near_a).sum() / n_b
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def isotropic(pred: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """The same with skimage's quickest disk dilation (distance transform), for an honest second yardstick."""
    a, b = boundary_map(pred), boundary_map(target)
    radius = bound_pixels(*pred.shape)
    near_a, near_b = (isotropic_dilation(c, radius) for c in (a, b))
    union = np.count_nonzero(pred | target)
    j = np.count_nonzero(pred & target) / union if union else 1.0
    n_a, n_b = a.sum(), b.sum()
    if not n_a or not n_b:
        return j, float(n_a == n_b)
    precision, recall = (a & near_b).sum() / n_a, (b & near_a).sum() / n_b
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def run(root: Path) -> dict[str, Any]:
    """Times both in turn, sequence by sequence, reading of the pictures included in both."""
    folders = find_sequences(root / "results", root / "DAVIS")
    begin = time.perf_counter()
    scores = score_folders(folders)
    ours = time.perf_counter() - begin
    seconds = {}
    worst = 0.0
    for name, program in (("official", official), ("isotropic", isotropic)):
        begin = time.perf_counter()
        values: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for sequence, frames in folders.sequences:
            for frame in frames[1:-1]:
                found, real = (
                    read_index_png(side / sequence / f"{frame}.png") for side in (folders.pred, folders.target)
                )
                for label in range(1, 4):
                    values.setdefault((sequence, label), []).append(program(found == label, real == label))
        seconds[name] = time.perf_counter() - begin
        for score in scores:
            theirs = np.array(values[score.sequence, score.object])
            worst = max(worst, float(np.abs(theirs - np.stack([score.j, score.f], 1)).max()))
    return {
        "workload": "480p sequences",
        "frames": sum(len(frames) - 2 for _, frames in folders.sequences),
        "objects": len(scores),
        "seconds": {"ours (1 process)": round(ours, 3)} | {k: round(v, 3) for k, v in seconds.items()},
        "times_ours": {name: round(value / ours, 2) for name, value in seconds.items()},
        "largest_difference": worst,
        "met": {"official": seconds["official"] / ours >= TARGET},
    }


def main() -> None:
    """Prints the row and, with --json, writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="6 sequences of 60 frames instead of 2 of 12")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"sequences": 6, "frames": 60} if options.full else {"sequences": 2, "frames": 12}
        row = run(make_davis(Path(folder), **sizes))
    print(json.dumps(row))
    if options.json:
        options.json.write_text(json.dumps([row], indent=1) + "\n")


if __name__ == "__main__":
    main()
