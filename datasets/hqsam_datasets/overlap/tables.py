"""`pairs.parquet`: one row per proved overlap, with its evidence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam_datasets.formats.manifest import write_table
from hqsam_datasets.overlap.candidates import VARIANTS
from hqsam_datasets.overlap.verify import pixel_affine

if TYPE_CHECKING:
    from hqsam_datasets.overlap.pair import Pair
    from hqsam_datasets.overlap.store import ImageList


def write_pairs(
    path: Path, pairs: list[Pair], train: ImageList, other: ImageList, excluded: set[str]
) -> None:
    """Write the table, sorted by (scope, train_key, group, key).

    Columns: `train_key`, `source`; `scope` (`eval`: against a benchmark, `train`: against another
    training image),
    `group` (benchmark or source) and `key` of the other image; `kind`; `found_by`
    (`pixels|pdq|tiles|mask`),
    `variant`, `hamming`, `tiles`; the evidence of `hqsam_datasets.overlap.verify.Evidence`;
    `affine`, six numbers that take pixels (x, y, 1) of the training image to the other's;
    `excluded`.
    """
    import pyarrow as pa

    kinds = {"string": pa.string(), "int": pa.int32(), "float": pa.float64(), "bool": pa.bool_()}
    fields = [pa.field(name, kinds[kind], nullable=null) for name, kind, null in _COLUMNS]
    fields.append(pa.field("affine", pa.list_(pa.float64()), nullable=False))
    rows = [_row(pair, train, other if pair.scope == "eval" else train, excluded) for pair in pairs]
    write_table(
        path, rows, schema=pa.schema(fields), sort_by=("scope", "train_key", "group", "key")
    )


_COLUMNS = (
    # column, type, nullable
    ("train_key", "string", False),
    ("source", "string", False),
    ("scope", "string", False),
    ("group", "string", False),
    ("key", "string", False),
    ("kind", "string", False),
    ("found_by", "string", False),
    ("variant", "string", False),
    ("hamming", "int", True),
    ("tiles", "int", False),
    ("ncc", "float", True),
    ("corners", "int", True),
    ("corner_fraction", "float", True),
    ("matched_fraction", "float", True),
    ("matched_inside", "float", True),
    ("matched_outside", "float", True),
    ("cover_train", "float", False),
    ("cover_other", "float", False),
    ("area_train", "float", False),
    ("area_other", "float", False),
    ("outline", "float", True),
    ("colour", "float", True),
    ("excluded", "bool", False),
)


def _row(pair: Pair, train: ImageList, other: ImageList, excluded: set[str]) -> dict[str, Any]:
    evidence, candidate = pair.evidence, pair.candidate
    shapes = [
        (int(side.height[row]), int(side.width[row]))
        for side, row in ((train, pair.train), (other, pair.other))
    ]
    affine = pixel_affine(evidence, candidate.variant, shapes[0], shapes[1])
    return {
        "train_key": train.key[pair.train],
        "source": train.group[pair.train],
        "scope": pair.scope,
        "group": other.group[pair.other],
        "key": other.key[pair.other],
        "kind": pair.kind,
        "found_by": candidate.found_by,
        "variant": VARIANTS[candidate.variant],
        "hamming": candidate.hamming,
        "tiles": candidate.tiles,
        "ncc": _value(evidence.ncc),
        "corners": evidence.corners,
        "corner_fraction": _value(evidence.corner_fraction),
        "matched_fraction": _value(evidence.matched_fraction),
        "matched_inside": _value(evidence.matched_inside),
        "matched_outside": _value(evidence.matched_outside),
        "cover_train": _value(evidence.cover_train),
        "cover_other": _value(evidence.cover_other),
        "area_train": _value(evidence.area_train),
        "area_other": _value(evidence.area_other),
        "outline": _value(evidence.outline),
        "colour": _value(evidence.colour),
        "excluded": pair.scope == "eval" and train.key[pair.train] in excluded,
        "affine": [_value(v) for v in affine.ravel().tolist()],
    }


def _value(value: float) -> float | None:
    """Round to six digits; undefined is null."""
    return None if not math.isfinite(value) else round(value, 6)
