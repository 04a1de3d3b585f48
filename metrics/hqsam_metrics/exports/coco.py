"""COCO results: a JSON list of masks with image, category and score, as `pycocotools` loads it.

Source: https://cocodataset.org/#format-results (object detection, segmentation masks).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_metrics.exports.base import Export, detections, write_results

if TYPE_CHECKING:
    from hqsam_metrics.base import ScoreOptions
    from hqsam_metrics.benchmark_data import Predictions


class CocoExport(Export):
    """The format `coco`."""

    name = "coco"
    kinds = ("coco", "lvis")

    def write(self, data: Predictions, options: ScoreOptions, out: Path) -> list[str]:
        """See `hqsam_metrics.exports.base.Export`."""
        write_results(out, (record for _, _, record in detections(data, options)))
        return []


EXPORT = CocoExport()
