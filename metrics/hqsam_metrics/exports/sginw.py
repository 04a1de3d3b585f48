"""SGinW results: one COCO results file a set, `seginw-<Set>_val.json`, with the set's own ids.

Source: names as in `seginw/test_ap_on_seginw.py` of the HQ-SAM authors.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam_base.json_stream import read_json
from hqsam_base.sginw import CATEGORIES_A_SET, IMAGES_A_SET, SETS
from hqsam_metrics.exports.base import Export, detections, write_results
from hqsam_metrics.scores.sginw import check_sets

if TYPE_CHECKING:
    from hqsam_metrics.base import ScoreOptions
    from hqsam_metrics.benchmark_data import Predictions


class SginwExport(Export):
    """The format `sginw`."""

    name = "sginw"
    kinds = ("coco",)
    folder = True

    def write(self, data: Predictions, options: ScoreOptions, out: Path) -> list[str]:
        """See `hqsam_metrics.exports.base.Export`."""
        truth = read_json(data.benchmark.ground_truth)
        names = {row["id"]: str(row.get("supercategory")) for row in truth["categories"]}
        check_sets(names.values(), str(data.benchmark.ground_truth))
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for image, category, record in detections(data, options):
            # The index stage numbered the ids of the sets through.
            own = {"image_id": image % IMAGES_A_SET, "category_id": category % CATEGORIES_A_SET}
            rows[names[category]].append(record | own)
        for name in SETS:
            write_results(out / f"seginw-{name}_val.json", rows[name])
        return []


EXPORT = SginwExport()
