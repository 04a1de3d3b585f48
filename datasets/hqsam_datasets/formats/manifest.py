"""Tables that travel between stages: their schemas, and deterministic parquet files.

The schemas here are the contract of docs/formats.md. `write_table` sorts, checks and writes; the
same rows give the same bytes for the same pyarrow.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, get_args

from hqsam_base.atomic import atomic_file
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

RejectReason = Literal[
    "known_bad",  # on the source's list of known bad files
    "stray_file",  # neither an image nor a mask of a pair, by the source's own rules
    "crowd",  # a region of many objects in an annotation file, not one of them
    "no_object",  # an image to which an annotation file gives no object
    "no_mask",  # an annotation without a mask, of a box alone
    "missing_mask",
    "missing_image",
    "unreadable_image",
    "unreadable_mask",
    "unsupported_mode",
    "size_mismatch",  # image and mask differ in size and the source does not say which to trust
    "not_a_mask",  # a picture stands in place of a mask
    "ambiguous_mask",  # the values do not say what is foreground
    "empty_mask",
    "too_large",
    "duplicate_key",
    "invalid_annotation",
]
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)

TableName = Literal["samples", "images", "instances", "prompts"]


class Reject(TypedDict):
    """One line of rejects.jsonl: a file that did not become a sample, and why."""

    source: str
    origin: str
    reason: RejectReason
    detail: str


class SampleRow(TypedDict):
    """One row of data/samples/<source>/manifest.parquet; see docs/formats.md."""

    key: str
    source: str
    shard: str
    n_instances: int
    height: int
    width: int
    image_digest: str
    pixel_digest: str
    mask_encoding: str
    image_mode: str
    exif_orientation: int
    soft_fraction: float
    fg_fraction: float
    origin_image: str
    origin_mask: str
    pdq: bytes
    pdq_quality: int
    tiles: NotRequired[bytes]


_SCHEMAS: dict[TableName, tuple[tuple[str, str, bool], ...]] = {
    # column, type, nullable
    "samples": (
        ("key", "string", False),
        ("source", "string", False),
        ("shard", "string", False),
        ("n_instances", "int32", False),
        ("height", "int32", False),
        ("width", "int32", False),
        ("image_digest", "string", False),
        ("pixel_digest", "string", False),
        ("mask_encoding", "string", False),
        ("image_mode", "string", False),
        ("exif_orientation", "int32", False),
        ("soft_fraction", "float64", False),
        ("fg_fraction", "float64", False),
        ("origin_image", "string", False),
        ("origin_mask", "string", False),
        ("pdq", "binary", False),
        ("pdq_quality", "int32", False),
        ("tiles", "binary", False),
    ),
    "images": (
        ("key", "string", False),
        ("member", "string", False),
        ("shard", "string", False),
        ("height", "int32", False),
        ("width", "int32", False),
        ("image_id", "int64", False),
        ("video", "string", True),
        ("video_id", "int64", True),
        ("frame", "int32", True),
        ("pixel_digest", "string", False),
        ("pdq", "binary", False),
        ("pdq_quality", "int32", False),
        ("tiles", "binary", False),
    ),
    "instances": (
        ("instance_id", "string", False),
        ("key", "string", False),
        ("image_id", "int64", False),
        ("category_id", "int64", False),
        ("track_id", "int64", True),
        ("iscrowd", "int8", False),
        ("area", "float64", False),
        ("rle", "string", False),
        ("height", "int32", False),
        ("width", "int32", False),
    ),
    "prompts": (
        ("prompt_id", "string", False),
        ("key", "string", False),
        ("prompt_set", "string", False),
        ("kind", "string", False),
        ("x0", "float64", True),
        ("y0", "float64", True),
        ("x1", "float64", True),
        ("y1", "float64", True),
        ("points", "points", True),
        ("labels", "labels", True),
        ("rle", "string", True),
        ("height", "int32", False),
        ("width", "int32", False),
        ("score", "float64", True),
        ("category_id", "int64", True),
        ("track_id", "int64", True),
        ("instance_id", "string", True),
    ),
}

_SORT_BY: dict[TableName, tuple[str, ...]] = {
    "samples": ("key",),
    "images": ("key",),
    "instances": ("key", "instance_id"),
    "prompts": ("key", "prompt_id"),
}


@functools.cache
def schema(name: TableName) -> pa.Schema:
    """The arrow schema of one of the contract's tables."""
    import pyarrow as pa

    types = {"points": pa.list_(pa.list_(pa.float64())), "labels": pa.list_(pa.int32())}
    return pa.schema(
        [
            pa.field(
                column, types[kind] if kind in types else pa.type_for_alias(kind), nullable=nullable
            )
            for column, kind, nullable in _SCHEMAS[name]
        ]
    )


def write_rows(path: Path, name: TableName, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
    """Write one of the contract's tables, sorted as the contract says."""
    write_table(path, rows, schema=schema(name), sort_by=_SORT_BY[name])


class RowsWriter:
    """Collects the rows of a table as Arrow columns, which take less memory than dicts, and writes them."""

    def __init__(self, path: Path, name: TableName) -> None:
        self._path = path
        self._name = name
        self._parts = [schema(name).empty_table()]

    def __len__(self) -> int:
        return sum(part.num_rows for part in self._parts)

    def extend(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in rows; raises as `write_table` does."""
        self._parts.append(_from_rows(self._path, rows, schema(self._name)))

    def write(self) -> None:
        """Write the file; see `write_rows`."""
        import pyarrow as pa

        write_rows(self._path, self._name, pa.concat_tables(self._parts))


def write_table(
    path: Path,
    rows: Sequence[Mapping[str, Any]] | pa.Table,
    *,
    schema: pa.Schema | None = None,
    sort_by: Sequence[str] = ("key",),
) -> None:
    """Write a table as parquet (zstd), sorted by `sort_by`, atomically and with deterministic bytes.

    Args:
        path: file to write.
        rows: dicts with exactly the schema's columns, or an arrow table.
        schema: column names, types and nullability; needed when `rows` are dicts.
        sort_by: columns that order the rows; rows equal in all of them keep their order.

    Raises:
        UserError: if a row has an unknown or missing column, a value of a wrong type, or a null
            where none may be.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = rows if not isinstance(rows, Sequence) else _from_rows(path, rows, schema)
    if schema is not None:
        if set(table.column_names) != set(schema.names):
            wrong = sorted(set(table.column_names) ^ set(schema.names))
            raise UserError(f"columns missing or unknown: {wrong}", file=path)
        table = table.select(schema.names)
        for column in schema:
            if not column.nullable and table.column(column.name).null_count:
                raise UserError(f"column {column.name} holds a null", file=path)
        table = table.cast(schema)
    if sort_by and table.num_rows:
        # Arrow's sort is not stable: the row number settles ties.
        number = pa.array(range(table.num_rows), pa.uint64())
        order = pa.table({name: table.column(name) for name in sort_by})
        order = order.append_column("row_number_", number)
        keys = [(name, "ascending") for name in (*sort_by, "row_number_")]
        indices = pc.sort_indices(order, sort_keys=keys)
        if not indices.equals(number):
            table = table.take(indices)
    table = table.replace_schema_metadata(None).combine_chunks()
    with atomic_file(path) as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            version="2.6",
            data_page_version="1.0",
            row_group_size=65_536,
            use_dictionary=False,
            write_statistics=True,
            store_schema=True,
        )


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file (all or some columns); `read_table(p).to_pylist()` gives dicts.

    Raises:
        UserError: if the file is missing, damaged, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError("the table does not exist", file=path, cure="run the stage that writes it")
    try:
        return pq.read_table(
            path, columns=None if columns is None else list(columns), use_threads=False
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise UserError(
            f"the table cannot be read: {error}", file=path, cure="run the stage that writes it"
        ) from error


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """`read_table` as a list of dicts."""
    rows: list[dict[str, Any]] = read_table(path, columns).to_pylist()
    return rows


def count_by_reason(rejects: Iterable[Reject]) -> dict[str, int]:
    """Number of rejects per reason, reasons sorted."""
    counts: dict[str, int] = {}
    for reject in rejects:
        counts[reject["reason"]] = counts.get(reject["reason"], 0) + 1
    return dict(sorted(counts.items()))


def _from_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None) -> pa.Table:
    import pyarrow as pa

    if schema is None:
        return pa.Table.from_pylist([dict(row) for row in rows])
    names = set(schema.names)
    for row in rows:
        if row.keys() != names:
            wrong = sorted(row.keys() ^ names)
            raise UserError(
                f"columns missing or unknown: {wrong}", file=path, key=str(row.get("key"))
            )
    try:
        columns = [pa.array([row[f.name] for row in rows], type=f.type) for f in schema]
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise UserError(f"a value does not fit its column: {error}", file=path) from error
    return pa.Table.from_arrays(columns, schema=schema)
