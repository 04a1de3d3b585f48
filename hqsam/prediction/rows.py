"""The rows of predictions, as arrow columns from the start: a set has millions of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from hqsam.prediction.postprocess import MaskCodes

Row = dict[str, Any]

_FIELDS = {
    "prompt_id": pa.string(),
    "key": pa.string(),
    "prompt_set": pa.string(),
    "system": pa.string(),
    "rle": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "iou_pred": pa.float64(),
    "mask_area": pa.int64(),
}
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _FIELDS.items()])
"""The columns of ``part-*.parquet`` (docs/formats.md)."""


@dataclass(frozen=True)
class MaskRows:
    """The rows of one system for some prompts of an image.

    Attributes:
        prompts: their rows of ``prompts.parquet``.
        system: its name.
        iou: predicted IoUs.
        masks: gives the masks; waits for them where they are still in the making.
    """

    prompts: Sequence[Row]
    system: str
    iou: Sequence[float]
    masks: Callable[[], MaskCodes]


def table(of_image: Sequence[MaskRows]) -> pa.Table:
    """Gather the rows of an image.

    Args:
        of_image: for each pass and system.

    Returns:
        One row per prompt and system, columns as in `SCHEMA`.
    """
    if not of_image:
        return SCHEMA.empty_table()
    prompts = [row for rows in of_image for row in rows.prompts]
    masks = [rows.masks() for rows in of_image]
    columns: dict[str, Any] = {
        name: [row[name] for row in prompts] for name in ("prompt_id", "key", "prompt_set")
    }
    columns["system"] = [rows.system for rows in of_image for _ in rows.prompts]
    texts = []
    for codes in (one.codes for one in masks):
        offsets = pa.py_buffer(codes.offsets.astype(np.int32))  # a pass has far less than 2 GB
        texts.append(pa.StringArray.from_buffers(len(codes), offsets, pa.py_buffer(codes.data)))
    columns["rle"] = pa.concat_arrays(texts)
    columns["height"] = np.concatenate([one.codes.heights for one in masks])
    columns["width"] = np.concatenate([one.codes.widths for one in masks])
    # The last bits depend on how many prompts share a pass.
    columns["iou_pred"] = [round(iou, 6) for rows in of_image for iou in rows.iou]
    columns["mask_area"] = np.concatenate([one.areas for one in masks])
    return pa.table(columns, schema=SCHEMA)
