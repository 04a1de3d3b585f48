"""The files `matches.parquet` and `truth.parquet` of a benchmark's scores (docs/formats.md).

Row groups hold one system each, so that a reader of one system skips the others; columns are a few
bits a detection after compression.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_base.errors import UserError
from hqsam_metrics import bounded_parquet
from hqsam_metrics.ap.resample import Matches, Truth

MATCHES, TRUTH = "matches.parquet", "truth.parquet"
_VOID = "_void"
_ROWS = 1 << 20  # of a row group at most
_MOST_ROWS = 20_000_000
"""Of one system; three times the 300 detections of each image of LVIS."""


class MatchesWriter:
    """Writes the matches of one system after the other into a folder; use it as a context.

    Args:
        folder: where both files appear with the first system; none without one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> MatchesWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, prompt_set: str, system: str, matches: Matches) -> None:
        """Writes one system; all have the same ground truth."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = {"prompt_set": prompt_set, "system": system}
        columns: dict[str, Any] = {
            name: pa.DictionaryArray.from_arrays(np.zeros(len(matches.image), np.int32), [text])
            for name, text in names.items()
        }
        columns |= {"image": matches.image, "category": matches.category}
        for name in matches.hit:
            columns |= {name: matches.hit[name], name + _VOID: matches.void[name]}
        table = pa.table(columns)
        if self._writer is None:
            pq.write_table(_truth_table(matches.truth), self._folder / TRUTH, compression="zstd")
            self._writer = pq.ParquetWriter(
                self._folder / MATCHES, table.schema, compression="zstd"
            )
        self._writer.write_table(table, row_group_size=_ROWS)


def _truth_table(truth: Truth) -> Any:
    """One row a cell with ground truth; an image without any has one row without a category."""
    import pyarrow as pa

    bare = np.setdiff1d(np.arange(len(truth.ids)), truth.image)
    image = np.concatenate([truth.image, bare]).astype(np.int32)
    order = np.lexsort((np.arange(len(image)), image))
    category = pa.array(
        np.append(truth.category, np.zeros_like(bare)),
        pa.int32(),
        mask=np.arange(len(image)) >= len(truth.image),
    )
    columns: dict[str, Any] = {
        "image": image[order],
        "image_id": pa.array([truth.ids[i] for i in image[order]], pa.string()),
        "cluster": truth.cluster[image[order]],
        "stratum": truth.stratum[image[order]],
        "category": category.take(pa.array(order)),
    }
    for name, objects in truth.objects.items():
        columns[name] = np.append(objects, np.zeros_like(bare)).astype(np.int32)[order]
    return pa.table(columns)


def read_matches(files: Mapping[str, Any], prompt_set: str, system: str, where: str) -> Matches:
    """Reads the matches of one system.

    Args:
        files: `MATCHES` and `TRUTH` to a path or a binary file object.
        prompt_set: name of the prompts.
        system: name of the system.
        where: names the files in an error.

    Raises:
        UserError: a file cannot be read, or holds no such system.
    """
    import pyarrow as pa

    try:
        with bounded_parquet.opened(files[TRUTH], ["image_id"]) as file:
            truth = _read_truth(bounded_parquet.read(file, _MOST_ROWS))
        table = _of_system(files[MATCHES], {"prompt_set": prompt_set, "system": system})
        hit = {name: _column(table, name, "uint16") for name in truth.objects}
        void = {name: _column(table, name + _VOID, "uint16") for name in truth.objects}
        image, category = _column(table, "image"), _column(table, "category")
        outside = len(image) and not 0 <= int(image.min()) <= int(image.max()) < len(truth.ids)
        if outside or (np.diff(category) < 0).any():
            raise ValueError("a place that does not exist, or rows out of order")
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError) as error:
        raise UserError(
            f"the matches cannot be read: {error}",
            file=where,
            cure="run `dvc repro score` or `dvc pull`",
        ) from error
    return Matches(truth, image, category, hit, void)


def _of_system(source: Any, wanted: Mapping[str, str]) -> Any:
    """The rows of one system, whose row groups alone are read."""
    import pyarrow.compute as pc

    names = list(wanted)

    def theirs(table: Any) -> Any:
        one, other = (bounded_parquet.equal(table[name], wanted[name]) for name in names)
        return pc.and_(one, other)

    with bounded_parquet.opened(source, names) as file:
        groups = [
            number
            for number in range(file.num_row_groups)
            if pc.any(
                theirs(bounded_parquet.read(file, _MOST_ROWS, groups=[number], columns=names))
            ).as_py()
        ]
        table = bounded_parquet.read(file, _MOST_ROWS, groups=groups)
    return table.filter(theirs(table))


_PLACES = ("image", "image_id", "cluster", "stratum", "category")


def _read_truth(table: Any) -> Truth:
    image = _column(table, "image")
    bounded_parquet.check_texts(table["image_id"])
    ids = table["image_id"].to_pylist()
    places, first = np.unique(image, return_index=True)
    if not np.array_equal(places, np.arange(len(places))) or None in ids:
        raise ValueError("the images are not numbered through")
    category = table["category"]
    there = np.flatnonzero(np.asarray(category.is_valid()))
    return Truth(
        [ids[row] for row in first],
        _column(table, "cluster")[first],
        _column(table, "stratum")[first],
        image[there],
        np.asarray(category.fill_null(-1).to_numpy(), np.int32)[there],
        {name: _column(table, name)[there] for name in table.column_names if name not in _PLACES},
    )


def _column(table: Any, name: str, kind: str = "int32") -> Any:
    """A column without gaps, of the type that the score stage writes."""
    column = table[name]
    if str(column.type) != kind or column.null_count:
        raise TypeError(f"column {name} is {column.type} with {column.null_count} gaps, not {kind}")
    return column.to_numpy()
