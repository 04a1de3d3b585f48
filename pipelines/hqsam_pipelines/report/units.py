"""Per-instance tables (``instances.parquet``): read within limits, and paired between systems, seeds and commits.

Texts stay codes into sorted lists of the distinct ones, so that a table of 18 million rows takes
half a gigabyte and codes order rows as their texts would.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_metrics import bounded_parquet
from hqsam_metrics.base import Quantity

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = ("prompt_set", "system", "key", "cluster", "unit")
_MOST_ROWS = 40_000_000  # 20,000 images of 300 objects and three systems are 18 million


def units_frame(source: Any, where: str) -> pd.DataFrame:
    """Reads a per-instance table (``instances.parquet``).

    Args:
        source: path or binary file object.
        where: name for error messages.

    Returns:
        The table: prompt_set, system, key, cluster, unit (categories in the order of their texts)
        and the columns of the metric.

    Raises:
        UserError: it is damaged, too large, lacks a column, or holds an instance twice.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        with bounded_parquet.opened(source, _TEXTS) as file:
            schema = file.schema_arrow
            missing = sorted({*_TEXTS} - {*schema.names})
            if missing:
                raise UserError(
                    f"the per-instance table lacks the columns {missing}",
                    file=where,
                    cure="score again",
                )
            strange = [field.name for field in schema if not _is_ours(field)]
            # Column by column: one of texts takes several times its codes while it is read.
            columns: dict[str, pd.Categorical | NDArray[np.float64]] = {}
            for name in () if strange else schema.names:
                column = bounded_parquet.read(file, _MOST_ROWS, columns=[name])[name]
                columns[name] = (
                    _categories(column)
                    if name in _TEXTS
                    else column.to_numpy().astype(np.float64, copy=False)
                )
        frame = pd.DataFrame(columns, copy=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        cure = "run `dvc repro score` or `dvc pull`"
        raise UserError(
            f"the per-instance table cannot be read: {error}", file=where, cure=cure
        ) from error
    if strange or _twice(frame):
        why = f"columns of another type: {strange}" if strange else "an instance twice"
        raise UserError(f"the per-instance table has {why}", file=where, cure="score again")
    return frame


def _is_ours(field: Any) -> bool:
    """Whether a column holds texts or numbers, as the score stage writes them."""
    import pyarrow as pa

    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if field.name in _TEXTS:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
    return bool(pa.types.is_floating(kind) or pa.types.is_null(kind))


def _twice(frame: pd.DataFrame) -> bool:
    """Whether two rows have the same prompt set, system, image and unit."""
    number, most = np.zeros(len(frame), np.int64), 1
    for name in ("prompt_set", "system", "key", "unit"):
        most *= len(frame[name].cat.categories)
        if most >= 2**63:  # such a table is made up: slow, but right
            return bool(frame.duplicated(["prompt_set", "system", "key", "unit"]).any())
        number *= len(frame[name].cat.categories)
        number += frame[name].cat.codes.to_numpy()
    number.sort()
    return bool((number[1:] == number[:-1]).any())


def _categories(column: Any) -> pd.Categorical:
    """A text column as codes into its distinct texts, sorted.

    Raises:
        ValueError: a text is missing, or too long for a name.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        raise ValueError("a name is missing")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    chunks = column.unify_dictionaries().chunks
    texts = chunks[0].dictionary if chunks else pa.array([], pa.string())
    longest = pc.max(pc.utf8_length(texts)).as_py() or 0
    if longest > bounded_parquet.LONGEST:
        raise ValueError(f"a text of {longest} characters, the limit is {bounded_parquet.LONGEST}")
    order = pc.sort_indices(texts)
    place = np.empty(len(texts), np.int32)
    place[order.to_numpy()] = np.arange(len(texts), dtype=np.int32)
    codes = [place[chunk.indices.to_numpy()] for chunk in chunks]
    return pd.Categorical.from_codes(
        np.concatenate(codes) if codes else place, pd.Index(texts.take(order).to_pandas())
    )


def quantity_values(frame: pd.DataFrame, quantity: Quantity) -> NDArray[np.float64]:
    """A quantity of every row of a per-instance table, as stored; NaN where the table lacks a column."""
    columns = frame.reindex(columns=list(quantity.columns)).to_numpy(np.float64)
    total: NDArray[np.float64] = sum(columns.T[1:], columns.T[0])
    return total / len(quantity.columns)


def rows_of(frame: pd.DataFrame, prompt_set: str, system: str) -> pd.DataFrame:
    """The rows of one system with one prompt set, sorted by image and unit and numbered from 0."""
    mine = frame[((frame["prompt_set"] == prompt_set) & (frame["system"] == system)).to_numpy()]
    order = np.lexsort((mine["unit"].cat.codes, mine["key"].cat.codes))
    return mine.take(order).reset_index(drop=True)


def common_rows(frames: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The instances that all tables of `rows_of` have: the same ones in the same order, numbered from 0."""
    first = frames[0]
    places = [_places(first, frame) for frame in frames]
    if all(np.array_equal(places[0], other) for other in places[1:]):
        return list(frames)
    shared = functools.reduce(functools.partial(np.intersect1d, assume_unique=True), places)
    return [
        frame.take(np.flatnonzero(np.isin(place, shared, assume_unique=True))).reset_index(
            drop=True
        )
        for frame, place in zip(frames, places, strict=True)
    ]


def _places(first: pd.DataFrame, frame: pd.DataFrame) -> NDArray[np.int64]:
    """A number for each row's image and unit by the names of `first`; other negative ones for names that it lacks."""
    codes = []
    for name in ("key", "unit"):
        own, names = frame[name].cat, first[name].cat.categories
        known = names.get_indexer(own.categories).astype(np.int64)
        codes.append(known[own.codes.to_numpy()])
    key, unit = codes
    number = key * len(first["unit"].cat.categories) + unit
    lacking = (key < 0) | (unit < 0)
    return np.where(lacking, -1 - np.arange(len(number)), number)


def clusters_of(frame: pd.DataFrame) -> NDArray[np.integer[Any]]:
    """A number for the image or video of each row, in the order of their names."""
    return np.asarray(frame["cluster"].cat.codes)


def side_by_side(
    frame: pd.DataFrame, baseline: str, system: str, quantity: Quantity
) -> pd.DataFrame:
    """Every instance for which both systems have a value, by prompt set, image and unit.

    Returns:
        prompt_set, key, cluster, unit (categories), sam (the baseline's value) and hq (the
        system's), both as stored.
    """
    import pandas as pd

    found = []
    for prompt_set in frame["prompt_set"].cat.categories:
        sides = common_rows([rows_of(frame, prompt_set, name) for name in (baseline, system)])
        sam, hq = (quantity_values(side, quantity) for side in sides)
        names = sides[0][["prompt_set", "key", "cluster", "unit"]]
        found.append(names.assign(sam=sam, hq=hq)[~np.isnan(sam + hq)])
    return pd.concat(found, ignore_index=True)
