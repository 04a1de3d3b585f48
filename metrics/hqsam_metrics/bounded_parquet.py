"""Parquet files of strangers: a few kilobytes can stand for any number of rows, and for a long text in each of them.

What a file would take in memory follows from its footer, before a value is decoded: flat columns
have a known width, and texts are read as places in the list of the distinct ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST_BYTES = 2 << 30
"""Of all columns together: ten million rows of twenty columns need less."""
LONGEST = 1000
"""Characters of a text."""

_MOST_GROUPS = 10_000
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}
_PLACE = 4  # bytes of a text's place among the distinct ones


def opened(source: Any, texts: Sequence[str]) -> Any:
    """Open a file as `pyarrow.parquet.ParquetFile`, for `read`.

    Args:
        source: A path or a binary file object.
        texts: The columns that may hold texts, which are read as dictionaries.

    Raises:
        ValueError: A column is nested, or another one than `texts` holds texts.
        pyarrow.ArrowException: It is no Parquet file.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as plain:
        schema, groups = plain.schema, plain.num_row_groups
    if groups > _MOST_GROUPS:
        raise ValueError(f"it has {groups} row groups, the limit is {_MOST_GROUPS}")
    for column in map(schema.column, range(len(schema))):
        text = column.physical_type == "BYTE_ARRAY" and column.path in texts
        if column.max_repetition_level or not (text or column.physical_type in _WIDTHS):
            raise ValueError(f"column {column.path} holds neither numbers nor texts of ours")
    there = [name for name in texts if name in schema.names]
    return pq.ParquetFile(source, read_dictionary=there)


def read(
    file: Any,
    most_rows: int,
    *,
    groups: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> Any:
    """Read row groups as a `pyarrow.Table` if they need no more memory than `MOST_BYTES`.

    Args:
        file: Of `opened`.
        most_rows: The most rows that they may have.
        groups: Their numbers; default: all.
        columns: The columns to read; default: all.

    Raises:
        ValueError: They have more rows, need more memory, or are damaged.
    """
    groups = range(file.num_row_groups) if groups is None else groups
    parts = [file.metadata.row_group(number) for number in groups]
    rows = sum(part.num_rows for part in parts)
    if rows > most_rows:
        raise ValueError(f"it has {rows} rows, the limit is {most_rows}")
    # Not `part.column(n)`, which ends the process where statistics are damaged (pyarrow 26.0.1).
    stored = sum(part.total_byte_size for part in parts)
    width = sum(
        _WIDTHS.get(file.schema.column(number).physical_type, _PLACE)
        for number in range(len(file.schema))
    )
    if (needed := max(stored, rows * width)) > MOST_BYTES:
        raise ValueError(f"it needs {needed} bytes of memory, the limit is {MOST_BYTES}")
    table = file.read_row_groups(groups, columns=columns, use_threads=False)
    table.validate(full=True)  # else places beyond the list of distinct texts are followed
    return table


def equal(column: Any, text: str) -> Any:
    """Tell of each row of a text column whether it is `text`; a comparison by Arrow would write all rows out.

    Raises:
        ValueError: The column holds no texts.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    _refuse_numbers(column)
    return pa.chunked_array(
        [pc.equal(c.indices, pc.index(c.dictionary, text)) for c in column.chunks], pa.bool_()
    )


def check_texts(column: Any) -> None:
    """Check that a text column can be written out.

    Raises:
        ValueError: A text is too long for a name, all of them together for memory, or there are
            none.
    """
    import pyarrow.compute as pc

    _refuse_numbers(column)
    total = 0
    for chunk in column.chunks:
        longest = pc.max(pc.utf8_length(chunk.dictionary)).as_py() or 0
        if longest > LONGEST:
            raise ValueError(f"a text of {longest} characters, the limit is {LONGEST}")
        total += pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
    if total > MOST_BYTES:
        raise ValueError(f"texts of {total} bytes, the limit is {MOST_BYTES}")


def _refuse_numbers(column: Any) -> None:
    import pyarrow as pa

    kind = column.type
    texts = (pa.string(), pa.large_string())
    if not pa.types.is_dictionary(kind) or kind.value_type not in texts:
        raise ValueError(f"a column of {kind} in place of texts")
