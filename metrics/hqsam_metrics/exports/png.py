"""One PNG a mask, 0 and 255, with those of the ground truth beside them: what any picture program opens.

`pred/<prompt>.png` and, where a prompt belongs to an object of the ground truth,
`gt/<prompt>.png`: `hqsam score masks --pred OUT/pred --gt OUT/gt` gives the pipeline's numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from hqsam_base.errors import UserError
from hqsam_base.rle import decode
from hqsam_metrics.exports.base import Export, plain_names

if TYPE_CHECKING:
    from hqsam_base.runs import RleBatch
    from hqsam_metrics.base import ScoreOptions
    from hqsam_metrics.benchmark_data import Predictions


class PngExport(Export):
    """The format `png`."""

    name = "png"
    kinds = ("masks", "coco", "lvis", "ytvis", "davis")
    folder = True

    def write(self, data: Predictions, options: ScoreOptions, out: Path) -> list[str]:
        """See `hqsam_metrics.exports.base.Export`."""
        from hqsam_metrics.benchmark_data import lookup, rle_column, strings

        names = plain_names(f"{name}.png" for name in strings(data.prompts, "prompt_id"))
        (out / "pred").mkdir()
        for row, name in enumerate(names):
            _save(out / "pred" / name, data.masks, row)
        table = data.benchmark.instances
        real = lookup(data.prompts["instance_id"], table["instance_id"])
        masks = rle_column(table, data.benchmark.folder / "instances.parquet")
        (out / "gt").mkdir()
        for name, row in zip(names, real.tolist(), strict=True):
            if row >= 0:
                _save(out / "gt" / name, masks, row)
        unknown = int((real < 0).sum())
        return (
            [f"{unknown} prompts belong to no object of the ground truth: gt/ is without them"]
            if unknown
            else []
        )


def _save(path: Path, masks: RleBatch, row: int) -> None:
    size = int(masks.heights[row]), int(masks.widths[row])
    mask = decode(masks.string(row), height=size[0], width=size[1]).astype(np.uint8) * 255
    if not cv2.imwrite(str(path), mask):
        raise UserError("the file cannot be written", file=path, cure="give another --out")


EXPORT = PngExport()
