"""J&F on 480p sequences against the official formulation: skimage's disk dilation of both boundaries, whole frames.

    python -m perf metrics/jf [--full|--quick]

Three forms of that dilation are timed: skimage's by a footprint (the formulation of the DAVIS
program's text, which the promise is about), skimage's by a distance transform, and OpenCV's by a
footprint (what the program's last version calls). All of them read the pictures themselves,
sequence by sequence in turn with this package, and must give the same J and F.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from skimage.morphology import dilation as footprint_dilation
from skimage.morphology import disk, isotropic_dilation

from hqsam_metrics.masks.jf import bound_pixels
from hqsam_metrics.masks.png import read_index_png
from hqsam_metrics.scores._davis import DavisSequence, ObjectScore, find_sequences, score_sequence
from perf.metrics.workloads import make_davis
from perf.table import Row, finish

TARGET = 5.0
EQUAL = 1e-9
OBJECTS = 3
Dilate = Callable[[np.ndarray, int], np.ndarray]
Values = dict[int, list[tuple[float, float]]]

DILATIONS: dict[str, Dilate] = {
    "skimage, disk footprint": lambda mask, radius: footprint_dilation(mask, disk(radius)),
    "skimage, distance transform": isotropic_dilation,
    "OpenCV, disk footprint": lambda mask, radius: cv2.dilate(
        mask.view(np.uint8), disk(radius)
    ).view(np.bool_),
}
TARGETS = {"skimage, disk footprint": TARGET}


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


def official(pred: np.ndarray, target: np.ndarray, dilate: Dilate) -> tuple[float, float]:
    """J and F of one object in one frame, as the DAVIS program computes them."""
    union = np.count_nonzero(pred | target)
    j = np.count_nonzero(pred & target) / union if union else 1.0
    a, b = boundary_map(pred), boundary_map(target)
    near_a, near_b = (dilate(c, bound_pixels(*pred.shape)) for c in (a, b))
    n_a, n_b = a.sum(), b.sum()
    if not n_a or not n_b:
        return j, float(n_a == n_b)
    precision, recall = (a & near_b).sum() / n_a, (b & near_a).sum() / n_b
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def theirs(one: DavisSequence, dilate: Dilate) -> Values:
    """J and F of the objects of one sequence by the official formulation."""
    values: Values = {label: [] for label in range(1, OBJECTS + 1)}
    for paths in zip(one.pred[1:-1], one.target[1:-1], strict=True):
        found, real = (read_index_png(path) for path in paths)
        for label, rows in values.items():
            rows.append(official(found == label, real == label, dilate))
    return values


def ours(one: DavisSequence) -> list[ObjectScore]:
    """The same by this package, in this process."""
    sides = {"pred": one.pred, "target": one.target}
    read = {key: lambda at, side=side: read_index_png(side[at]) for key, side in sides.items()}
    return score_sequence(one.name, one.frames, **read)


def run(root: Path) -> list[Row]:
    """Times all programs in turn, sequence by sequence."""
    sequences = find_sequences(root / "results", root / "DAVIS")
    seconds = dict.fromkeys(("ours (1 process)", *DILATIONS), 0.0)
    worst = 0.0
    for one in sequences:
        begin = time.process_time()
        scores = ours(one)
        seconds["ours (1 process)"] += time.process_time() - begin
        for program, dilate in DILATIONS.items():
            begin = time.process_time()
            values = theirs(one, dilate)
            seconds[program] += time.process_time() - begin
            gaps = [
                np.abs(np.array(values[s.object]) - np.stack([s.j, s.f], 1)).max() for s in scores
            ]
            worst = max(worst, *map(float, gaps))
    return table(sum(len(one.frames) - 2 for one in sequences), seconds, worst)


def table(frames: int, seconds: dict[str, float], worst: float) -> list[Row]:
    """Ratios and the largest difference."""
    where = f"{frames} frames 480x854, {OBJECTS} objects"
    mine = seconds["ours (1 process)"]
    rows = [
        Row.at_least(
            f"J&F, {where}: as fast as {name}",
            seconds[name] / mine,
            TARGETS.get(name, 0.0),
            peer=f"{name}: {seconds[name]:.2f} s",
            now=f"{mine:.2f} s",
        )
        for name in DILATIONS
    ]
    return [*rows, Row.at_most(f"J&F, {where}: largest difference", worst, EQUAL, "")]


def main() -> int:
    """Prints the table; 1 when the ratio is missed or numbers differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--full", action="store_true", help="6 sequences of 60 frames instead of 2 of 12"
    )
    parser.add_argument("--quick", action="store_true", help="1 sequence of 4")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sequences, frames = (6, 60) if options.full else (1, 4) if options.quick else (2, 12)
        rows = run(make_davis(Path(folder), sequences=sequences, frames=frames))
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
