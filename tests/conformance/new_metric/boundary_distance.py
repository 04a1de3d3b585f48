"""Mean distance between the boundaries of prediction and ground truth, in pixels. Lower is better.

A metric as somebody would add it: this one file, named in the `score` section of a benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress, silent
from hqsam_metrics.base import (
    Option,
    Outcome,
    Quantity,
    Result,
    Scale,
    Score,
    ScoreOptions,
    Units,
    Value,
    rules,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hqsam_metrics.benchmark_data import Predictions

VERSION = 3
PIXELS = Scale(factor=1.0, unit="px", lower_is_better=True, limits=None)
DISTANCE = Quantity("boundary distance", ("distance",), PIXELS)


def boundary_distance(*, pred: NDArray[np.bool_], target: NDArray[np.bool_], most: float) -> float:
    """Returns the mean over both boundaries of the distance to the other one, at most `most`; NaN without a pixel."""
    import cv2

    edges = [
        m & ~(cv2.erode(m.view(np.uint8), np.ones((3, 3), np.uint8)) > 0) for m in (pred, target)
    ]
    if not all(edge.any() for edge in edges):
        return float("nan")
    away = [
        cv2.distanceTransform((~edge).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for edge in edges
    ]
    both = np.concatenate([away[1][edges[0]], away[0][edges[1]]])
    return float(np.minimum(both, most).mean())


def score_distance_folders(
    *,
    pred: Annotated[Path, Option("Predicted masks, PNG.", name="--pred", metavar="DIR")],
    gt: Annotated[
        Path, Option("Ground-truth masks of the same names.", name="--gt", metavar="DIR")
    ],
    most: Annotated[
        float, Option("Pixels that a distance counts at most.", name="--at-most")
    ] = 50.0,
    workers: Annotated[int, Option("Processes; changes no number.", least=1)] = 1,
    progress: Progress = silent,
) -> Result:
    """Mean distance between boundaries of PNG pairs, in pixels."""
    from hqsam_metrics.masks.png import read_mask_png

    files = sorted(gt.glob("*.png"))
    values = []
    for number, path in enumerate(files, start=1):
        pair = {"pred": read_mask_png(pred / path.name), "target": read_mask_png(path)}
        values.append(boundary_distance(**pair, most=most))
        progress(number, len(files), "measuring")
    metrics: dict[str, float | None] = {"MBD": float(np.mean(values))}
    return Result(
        metrics, len(files), len(files), rules("boundary_distance", VERSION, at_most=most)
    )


@dataclass(frozen=True)
class DistanceOptions(ScoreOptions):
    """Options of its own: `at_most`, the pixels that a distance counts at most."""

    at_most: float = 50.0

    def __post_init__(self) -> None:
        """Checks values."""
        super().__post_init__()
        if not self.at_most > 0:
            raise UserError(f"score.at_most is {self.at_most}: it must be above 0")


class BoundaryDistance(Score):
    """The metric `boundary_distance`."""

    name = "boundary_distance"
    version = VERSION
    kind = "masks"
    options = DistanceOptions
    columns = ("distance",)
    values: ClassVar = {"MBD": Value(PIXELS, mean_of=DISTANCE), "share_near": Value()}
    headline = ("MBD",)
    pictured = DISTANCE
    score_files = staticmethod(score_distance_folders)

    def protocol(self, options: DistanceOptions) -> dict[str, Any]:
        """See `hqsam_metrics.base.Score`."""
        return rules(self.name, VERSION, at_most=options.at_most)

    def evaluate(
        self, data: Predictions, options: DistanceOptions, *, progress: Progress
    ) -> Outcome:
        """See `hqsam_metrics.base.Score`."""
        from hqsam_base.rle import decode
        from hqsam_metrics.benchmark_data import lookup, rle_column, strings

        truth = data.benchmark.instances
        target = rle_column(truth, data.benchmark.folder / "instances.parquet")
        rows = lookup(data.prompts["instance_id"], truth["instance_id"])
        values = np.empty(len(rows))
        for i, row in enumerate(rows.tolist()):
            size = {"height": int(data.masks.heights[i]), "width": int(data.masks.widths[i])}
            codes = {"pred": data.masks.string(i), "target": target.string(row)}
            pair = {side: decode(code, **size) for side, code in codes.items()}
            values[i] = boundary_distance(**pair, most=options.at_most)
            progress(i + 1, len(rows), "measuring")
        metrics: dict[str, float | None] = {
            "MBD": float(np.nanmean(values)),
            "share_near": float(np.mean(values < 1.0)),
        }
        keys, units = data.keys(), [str(name) for name in strings(data.prompts, "prompt_id")]
        return Outcome(
            metrics,
            len(rows),
            int((~np.isnan(values)).sum()),
            Units(keys, keys, units, {"distance": values}),
        )


SCORE = BoundaryDistance()
