"""The three tables that the quality gate checks, built from the manifests without decoding a pixel.

`samples`: one row per training image. `images`: one row per evaluation image, with what its
instances and prompts do wrong counted into columns. `sets`: one row per source and benchmark, with
the counts that must agree and the references that must resolve. Whatever cannot be attributed to a
known image (a prompt for an unknown key) is counted in `sets`, with examples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.atomic import read_json
from hqsam_base.errors import UserError
from hqsam_datasets import prompts
from hqsam_datasets.formats import manifest
from hqsam_datasets.overlap.hashing import MAGIC, RECORD

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from hqsam_datasets.quality.options import QualityOptions

I64 = NDArray[np.int64]
Examples = dict[tuple[str, str], list[str]]
EXAMPLES = 20
_LISTED = ("known_bad", "stray_file", "crowd", "no_object", "no_mask")
"""Rejects that the data sheet of a source lists: no surprise."""


@dataclass
class Tables:
    """The tables, keys to name when an expectation on `sets` fails: (set, column) -> examples, and what is missing.

    A benchmark without images because optional files of its archive are unavailable is in no table,
    only in `missing` (benchmark -> what is missing and how to get it); so are benchmarks that lack
    only some prompts, which are checked.
    """

    samples: pd.DataFrame
    images: pd.DataFrame
    sets: pd.DataFrame
    examples: Examples = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the tables by name, in the order of checking."""
        return {"samples": self.samples, "images": self.images, "sets": self.sets}


def read_tables(
    samples: dict[str, Path], benchmarks: dict[str, Path], options: QualityOptions
) -> Tables:
    """Read all manifests.

    Raises:
        UserError: if a folder lacks a table or its own JSON, or a table lacks a column.
    """
    import pandas as pd

    sets: list[dict[str, Any]] = []
    examples: Examples = {}
    sample_frames = [_source(name, samples[name], sets) for name in sorted(samples)]
    missing = {name: text for name in sorted(benchmarks) if (text := _missing(benchmarks[name]))}
    there = [
        name
        for name in sorted(benchmarks)
        if name not in missing or int(read_json(benchmarks[name] / "index.json")["n_images"])
    ]
    image_frames = [_benchmark(name, benchmarks[name], sets, examples, options) for name in there]
    return Tables(
        samples=_joined(sample_frames, _SAMPLE_COLUMNS),
        images=_joined(image_frames, _IMAGE_COLUMNS),
        sets=pd.DataFrame(sets, columns=list(_SET_COLUMNS)),
        examples=examples,
        missing=missing,
    )


def _missing(folder: Path) -> str:
    """Return what the index says about optional files that are unavailable.

    "" if nothing is missing.
    """
    path = folder / "index.json"
    found = (read_json(path) if path.is_file() else {}).get("missing", {})
    what = (
        f"no prompts {', '.join(found.get('prompt_sets', ()))}; "
        if found.get("prompt_sets")
        else ""
    )
    files = "; ".join(f"{name} - {to_do}" for name, to_do in sorted(found.get("files", {}).items()))
    return what + files


_SAMPLE_COLUMNS = (
    "set",
    "key",
    "source",
    "shard_exists",
    "n_instances",
    "height",
    "width",
    "short_side",
    "image_digest",
    "pixel_digest",
    "mask_encoding",
    "image_mode",
    "exif_orientation",
    "soft_fraction",
    "fg_fraction",
    "origin_image",
    "origin_mask",
    "pdq_bytes",
    "pdq_quality",
    "tiles_ok",
    "key_has_prefix",
)
_IMAGE_COLUMNS = (
    "set",
    "key",
    "member",
    "shard_exists",
    "height",
    "width",
    "short_side",
    "image_id",
    "pixel_digest",
    "pdq_bytes",
    "pdq_quality",
    "tiles_ok",
    "key_has_prefix",
    "n_instances",
    "n_prompts",
    "n_sizes_wrong",
    "n_boxes_outside",
    "n_boxes_empty",
    "n_areas_negative",
)
_SET_COLUMNS = (
    "set",
    "role",
    "schema",
    "n_rows",
    "n_declared",
    "n_expected",
    "n_rejects",
    "n_listed_rejects",
    "reject_fraction",
    "n_duplicate_image_ids",
    "n_instances",
    "n_instances_declared",
    "n_prompts",
    "n_prompts_declared",
    "n_orphan_instances",
    "n_orphan_prompts",
    "n_unknown_instances",
    "n_duplicate_ids",
    "n_prompts_without_content",
)


def _joined(frames: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    if not frames:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(frames, ignore_index=True)[list(columns)]


# ---- training sources ----


def _source(name: str, folder: Path, sets: list[dict[str, Any]]) -> pd.DataFrame:
    table = manifest.read_table(folder / "manifest.parquet")
    _check_columns(folder / "manifest.parquet", table, "samples")
    declared = read_json(folder / "normalise.json")
    rejects = int(declared["n_rejects"])
    listed = sum(declared["rejects_by_reason"].get(reason, 0) for reason in _LISTED)
    surprises = rejects - listed
    sets.append(
        _set_row(
            name,
            "source",
            _schema(table, "samples"),
            n_rows=table.num_rows,
            n_declared=declared["n_samples"],
            n_expected=declared.get("n_expected") or declared["n_samples"],
            n_rejects=rejects,
            n_listed_rejects=listed,
            reject_fraction=surprises / max(1, surprises + table.num_rows),
        )
    )
    frame = table.drop_columns(["pdq", "tiles", "shard"]).to_pandas()
    return _with_common(frame, table, name, folder)


def _with_common(frame: pd.DataFrame, table: pa.Table, name: str, folder: Path) -> pd.DataFrame:
    """Add what both kinds of image have in common."""
    shards = table.column("shard").to_pylist()
    exists = {shard: (folder / shard).is_file() for shard in set(shards) if shard is not None}
    tiles = table.column("tiles").to_pylist()
    frame["set"] = name
    frame["shard_exists"] = [exists.get(shard, False) for shard in shards]
    frame["short_side"] = frame[["height", "width"]].min(axis=1)
    frame["pdq_bytes"] = [
        None if pdq is None else len(pdq) for pdq in table.column("pdq").to_pylist()
    ]
    frame["tiles_ok"] = [
        item is not None and item[:2] == MAGIC and (len(item) - 2) % RECORD.itemsize == 0
        for item in tiles
    ]
    frame["key_has_prefix"] = [
        key is not None and key.startswith(f"{name}_") for key in frame["key"]
    ]
    return frame


# ---- benchmarks ----


def _benchmark(
    name: str,
    folder: Path,
    sets: list[dict[str, Any]],
    examples: Examples,
    options: QualityOptions,
) -> pd.DataFrame:
    table = manifest.read_table(folder / "images.parquet")
    _check_columns(folder / "images.parquet", table, "images")
    declared = read_json(folder / "index.json")
    frame = _with_common(
        table.drop_columns(["pdq", "tiles", "shard", "video", "video_id", "frame"]).to_pandas(),
        table,
        name,
        folder,
    )
    children = _Children(name, table, options, examples)
    children.add_instances(manifest.read_table(folder / "instances.parquet", _INSTANCE_READ))
    children.add_prompts(manifest.read_table(folder / "prompts.parquet", _PROMPT_READ))
    for column, counts in children.per_image.items():
        frame[column] = counts
    repeated = frame.loc[frame["image_id"].duplicated(keep=False), "key"]
    examples[name, "n_duplicate_image_ids"] = repeated.astype(str).tolist()[:EXAMPLES]
    sets.append(
        _set_row(
            name,
            "benchmark",
            _schema(table, "images"),
            n_rows=table.num_rows,
            n_declared=declared["n_images"],
            n_expected=declared["n_images"],
            n_instances_declared=declared["n_instances"],
            n_prompts_declared=sum(declared["n_prompts"].values()),
            n_duplicate_image_ids=len(repeated),
            **children.per_set,
        )
    )
    return frame


_INSTANCE_READ = ["instance_id", "key", "height", "width", "area"]
_PROMPT_READ = [
    "prompt_id",
    "key",
    "kind",
    "x0",
    "y0",
    "x1",
    "y1",
    "points",
    "rle",
    "height",
    "width",
    "instance_id",
]


class _Children:
    """Counts what the instances and prompts of one benchmark do wrong, per image where the image is known.

    Prompts can be millions: they stay in arrow columns and numpy arrays, and only offenders become
    Python objects.
    """

    def __init__(
        self, name: str, images: pa.Table, options: QualityOptions, examples: Examples
    ) -> None:
        self._name, self._examples, self._tolerance = name, examples, options.box_tolerance
        self._keys = images.column("key").combine_chunks()
        self._height = images.column("height").to_numpy().astype(np.float64)
        self._width = images.column("width").to_numpy().astype(np.float64)
        self._instances: pa.ChunkedArray | None = None
        columns = (
            "n_instances",
            "n_prompts",
            "n_sizes_wrong",
            "n_boxes_outside",
            "n_boxes_empty",
            "n_areas_negative",
        )
        self.per_image: dict[str, I64] = {
            column: np.zeros(images.num_rows, np.int64) for column in columns
        }
        self.per_set: dict[str, int] = {"n_duplicate_ids": 0}

    def add_instances(self, table: pa.Table) -> None:
        """Count the rows of instances.parquet."""
        self._instances = table.column("instance_id")
        rows = self._attribute(table, "n_instances", "n_orphan_instances", "instance_id")
        self._count("n_areas_negative", rows, table.column("area").to_numpy() < 0)

    def add_prompts(self, table: pa.Table) -> None:
        """Count the rows of prompts.parquet; after the instances."""
        import pyarrow.compute as pc

        rows = self._attribute(table, "n_prompts", "n_orphan_prompts", "prompt_id")
        x0, y0, x1, y1 = (table.column(c).to_numpy() for c in ("x0", "y0", "x1", "y1"))
        width, height = self._at(self._width, rows), self._at(self._height, rows)
        reach = self._tolerance
        inside = (x0 >= -reach) & (y0 >= -reach) & (x1 <= width + reach) & (y1 <= height + reach)
        is_box = ~np.isnan(x0)
        self._count("n_boxes_outside", rows, is_box & ~inside)
        # One pixel is a box with equal corners: the corners are inclusive.
        self._count("n_boxes_empty", rows, is_box & ~((x1 >= x0) & (y1 >= y0)))
        given = table.column("instance_id").drop_null()
        self._offenders(
            "n_unknown_instances",
            given.filter(pc.invert(pc.is_in(given, value_set=self._instances))),
        )
        kind = table.column("kind")
        sound = np.zeros(table.num_rows, np.bool_)
        for one in (prompts.load(name) for name in prompts.names()):
            mine = pc.equal(kind, one.in_tables)
            for column in one.content:
                mine = pc.and_(mine, pc.is_valid(table.column(column)))
            sound |= np.asarray(pc.fill_null(mine, False).to_numpy(), np.bool_)
        self._offenders(
            "n_prompts_without_content", table.column("prompt_id").filter(_mask(~sound))
        )

    def _attribute(self, table: pa.Table, counter: str, orphans: str, id_column: str) -> I64:
        """Return the row of each child's image (-1: unknown).

        Count children, orphans, repeated ids and deviating sizes.
        """
        import pyarrow.compute as pc

        found = pc.fill_null(pc.index_in(table.column("key"), value_set=self._keys), -1)
        rows = np.asarray(found.to_numpy(), np.int64)
        self.per_set[counter] = table.num_rows
        self._count(counter, rows, np.ones(len(rows), np.bool_))
        self._offenders(orphans, table.column(id_column).filter(_mask(rows < 0)))
        height, width = (table.column(side).to_numpy() for side in ("height", "width"))
        wrong = (height != self._at(self._height, rows)) | (width != self._at(self._width, rows))
        self._count("n_sizes_wrong", rows, wrong)
        ids = table.column(id_column)
        extra = len(ids) - pc.count_distinct(ids).as_py()
        if extra:
            counts = pc.value_counts(ids)
            twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()
            known = self._examples.setdefault((self._name, "n_duplicate_ids"), [])
            known.extend(sorted(twice)[:EXAMPLES])
            self.per_set["n_duplicate_ids"] += extra
        return rows

    def _at(self, values: NDArray[np.float64], rows: I64) -> NDArray[np.float64]:
        return np.where(rows >= 0, values[np.maximum(rows, 0)] if len(values) else 0.0, np.nan)

    def _count(self, column: str, rows: I64, where: NDArray[np.bool_]) -> None:
        known = rows[where & (rows >= 0)]
        self.per_image[column] += np.bincount(known, minlength=len(self.per_image[column]))

    def _offenders(self, column: str, ids: pa.ChunkedArray) -> None:
        self.per_set[column] = len(ids)
        self._examples[self._name, column] = sorted(set(ids.slice(0, 1000).to_pylist()))[:EXAMPLES]


def _mask(flags: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(flags)


# ---- both ----


def _set_row(name: str, role: str, schema: str, **counts: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_SET_COLUMNS, 0)
    row.update({"set": name, "role": role, "schema": schema, "reject_fraction": 0.0, **counts})
    return row


def _schema(table: pa.Table, name: manifest.TableName) -> str:
    """Return `ok`, or what deviates from the contract's column types."""
    wanted = manifest.schema(name)
    wrong = [
        f"{f.name} is {table.schema.field(f.name).type}, not {f.type}"
        for f in wanted
        if not table.schema.field(f.name).type.equals(f.type)
    ]
    return "; ".join(wrong) or "ok"


def _check_columns(path: Path, table: pa.Table, name: manifest.TableName) -> None:
    missing = sorted(set(manifest.schema(name).names) - set(table.column_names))
    if missing:
        raise UserError(
            f"the table lacks columns: {', '.join(missing)}",
            file=path,
            cure="run the stage that writes it again",
        )
