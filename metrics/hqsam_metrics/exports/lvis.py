"""LVIS results, as `lvis` loads them: COCO's records, at most 300 of an image.

Source: https://www.lvisdataset.org/challenge_2021 (results format), lvis-api `LVISResults`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_metrics.exports.base import Export, detections, write_results

if TYPE_CHECKING:
    from hqsam_metrics.base import ScoreOptions
    from hqsam_metrics.benchmark_data import Predictions

_MOST = 300


class LvisExport(Export):
    """The format `lvis`. All predictions are written; the evaluator keeps the best 300 of an image."""

    name = "lvis"
    kinds = ("lvis",)

    def write(self, data: Predictions, options: ScoreOptions, out: Path) -> list[str]:
        """See `hqsam_metrics.exports.base.Export`."""
        write_results(out, (record for _, _, record in detections(data, options)))
        most = max(Counter(data.image.tolist()).values(), default=0)
        if most <= _MOST:
            return []
        return [f"an image has {most} predictions; the LVIS server keeps the best {_MOST}"]


EXPORT = LvisExport()
