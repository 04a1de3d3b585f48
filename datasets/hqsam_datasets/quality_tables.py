"""The three tables that the quality gate checks, built from the manifests without decoding a pixel.

`samples`: one row per training image. `images`: one row per evaluation image, with what its instances and prompts do
wrong counted into columns. `sets`: one row per source and benchmark, with the counts that must agree and the
references that must resolve. Whatever cannot be attributed to a known image (a prompt for an unknown key) is counted
in `sets`, with examples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hqsam_datasets import manifest
from hqsam_datasets.atomic import read_json
from hqsam_datasets.errors import UserError
from hqsam_datasets.hashing import MAGIC, RECORD

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from hqsam_datasets.quality import QualityOptions

I64 = NDArray[np.int64]
EXAMPLES = 20
_LISTED = ("known_bad", "stray_file")
"""Rejects that the data sheet of a source lists: no surprise."""


@dataclass
class Tables:
    """The tables, and keys to name when an expectation on `sets` fails: (set, column) -> examples."""

    samples: pd.DataFrame
    images: pd.DataFrame
    sets: pd.DataFrame
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def frames(self) -> dict[str, pd.DataFrame]:
        """By name, in the order of checking."""
        return {"samples": self.samples, "images": self.images, "sets": self.sets}


def read_tables(samples: dict[str, Path], benchmarks: dict[str, Path], options: QualityOptions) -> Tables:
    """Read all manifests.

    Raises:
        UserError: if a folder lacks a table or its own JSON, or a table lacks a column.
    """
    import pandas as pd

    sets: list[dict[str, Any]] = []
    examples: dict[tuple[str, str], list[str]] = {}
    sample_frames = [_source(name, samples[name], sets, examples) for name in sorted(samples)]
    image_frames = [_benchmark(name, benchmarks[name], sets, examples, options) for name in sorted(benchmarks)]
    return Tables(
        samples=_joined(sample_frames, _SAMPLE_COLUMNS),
        images=_joined(image_frames, _IMAGE_COLUMNS),
        sets=pd.DataFrame(sets, columns=list(_SET_COLUMNS)),
        examples=examples,
    )


_SAMPLE_COLUMNS = (
    "set", "key", "source", "shard_exists", "n_instances", "height", "width", "short_side", "image_sha256",
    "pixel_sha256", "mask_encoding", "image_mode", "exif_orientation", "soft_fraction", "fg_fraction", "origin_image",
    "origin_mask", "pdq_bytes", "pdq_quality", "tiles_ok", "key_has_prefix",
)  # fmt: skip
_IMAGE_COLUMNS = (
    "set", "key", "member", "shard_exists", "height", "width", "short_side", "image_id", "pixel_sha256", "pdq_bytes",
    "pdq_quality", "tiles_ok", "key_has_prefix", "n_instances", "n_prompts", "n_sizes_wrong", "n_boxes_outside",
    "n_boxes_empty", "n_areas_negative",
)  # fmt: skip
_SET_COLUMNS = (
    "set", "role", "schema", "n_rows", "n_declared", "n_expected", "n_rejects", "n_listed_rejects", "reject_fraction",
    "n_duplicate_image_ids",
    "n_instances", "n_instances_declared", "n_prompts", "n_prompts_declared", "n_orphan_instances", "n_orphan_prompts",
    "n_unknown_instances", "n_duplicate_ids", "n_prompts_without_content",
)  # fmt: skip


def _joined(frames: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    if not frames:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(frames, ignore_index=True)[list(columns)]


# ---- training sources ----


def _source(
    name: str, folder: Path, sets: list[dict[str, Any]], examples: dict[tuple[str, str], list[str]]
) -> pd.DataFrame:
    table = manifest.read_table(folder / "manifest.parquet")
    _check_columns(folder / "manifest.parquet", table, "samples")
    declared = read_json(folder / "normalise.json")
    rejects = int(declared["n_rejects"])
    listed = sum(declared["rejects_by_reason"].get(reason, 0) for reason in _LISTED)
    surprises = rejects - listed
    sets.append(
        _set_row(
            name, "source", _schema(table, "samples"), n_rows=table.num_rows, n_declared=declared["n_samples"],
            n_expected=declared.get("n_expected") or declared["n_samples"], n_rejects=rejects,
            n_listed_rejects=listed, reject_fraction=surprises / max(1, surprises + table.num_rows),
        )
    )  # fmt: skip
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
    frame["pdq_bytes"] = [None if pdq is None else len(pdq) for pdq in table.column("pdq").to_pylist()]
    frame["tiles_ok"] = [
        item is not None and item[:2] == MAGIC and (len(item) - 2) % RECORD.itemsize == 0 for item in tiles
    ]
    frame["key_has_prefix"] = [key is not None and key.startswith(f"{name}_") for key in frame["key"]]
    return frame


# ---- benchmarks ----


def _benchmark(
    name: str, folder: Path, sets: list[dict[str, Any]], examples: dict[tuple[str, str], list[str]],
    options: QualityOptions,
) -> pd.DataFrame:  # fmt: skip
    table = manifest.read_table(folder / "images.parquet")
    _check_columns(folder / "images.parquet", table, "images")
    declared = read_json(folder / "index.json")
    frame = _with_common(
        table.drop_columns(["pdq", "tiles", "shard", "video", "video_id", "frame"]).to_pandas(), table, name, folder
    )
    children = _Children(name, frame, options, examples)
    children.add_instances(manifest.read_table(folder / "instances.parquet", _INSTANCE_READ))
    children.add_prompts(manifest.read_table(folder / "prompts.parquet", _PROMPT_READ))
    for column, counts in children.per_image.items():
        frame[column] = counts
    repeated = frame.loc[frame["image_id"].duplicated(keep=False), "key"]
    examples[name, "n_duplicate_image_ids"] = repeated.astype(str).tolist()[:EXAMPLES]
    sets.append(
        _set_row(
            name, "benchmark", _schema(table, "images"), n_rows=table.num_rows, n_declared=declared["n_images"],
            n_expected=declared["n_images"], n_instances_declared=declared["n_instances"],
            n_prompts_declared=sum(declared["n_prompts"].values()), n_duplicate_image_ids=len(repeated),
            **children.per_set,
        )
    )  # fmt: skip
    return frame


_INSTANCE_READ = ["instance_id", "key", "height", "width", "area"]
_PROMPT_READ = ["prompt_id", "key", "kind", "x0", "y0", "x1", "y1", "points", "rle", "height", "width", "instance_id"]


class _Children:
    """Counts what the instances and prompts of one benchmark do wrong, per image where the image is known."""

    def __init__(
        self, name: str, images: pd.DataFrame, options: QualityOptions, examples: dict[tuple[str, str], list[str]]
    ) -> None:
        self._name, self._examples, self._tolerance = name, examples, options.box_tolerance
        self._rows = {key: row for row, key in enumerate(images["key"].tolist())}
        self._height = images["height"].to_numpy(np.float64)
        self._width = images["width"].to_numpy(np.float64)
        self._instances: set[str] = set()
        columns = ("n_instances", "n_prompts", "n_sizes_wrong", "n_boxes_outside", "n_boxes_empty", "n_areas_negative")
        self.per_image: dict[str, I64] = {column: np.zeros(len(images), np.int64) for column in columns}
        self.per_set: dict[str, int] = {"n_duplicate_ids": 0}

    def add_instances(self, table: pa.Table) -> None:
        """Count the rows of instances.parquet."""
        ids = table.column("instance_id").to_pylist()
        self._instances = set(ids)
        rows = self._attribute(table, "n_instances", "n_orphan_instances", ids)
        self._count("n_areas_negative", rows, table.column("area").to_numpy() < 0)
        self._duplicates(ids, len(self._instances))

    def add_prompts(self, table: pa.Table) -> None:
        """Count the rows of prompts.parquet."""
        import pyarrow.compute as pc

        ids = table.column("prompt_id").to_pylist()
        rows = self._attribute(table, "n_prompts", "n_orphan_prompts", ids)
        self._boxes(table, rows)
        self._duplicates(ids, len(set(ids)))
        given = [value for value in table.column("instance_id").to_pylist() if value is not None]
        self._set("n_unknown_instances", sorted(set(given) - self._instances))
        kind = np.asarray(table.column("kind").to_pylist(), dtype=object)
        content = {"box": "x0", "point": "points", "mask": "rle"}
        empty = ~np.isin(kind.astype(str), list(content))
        for name, column in content.items():
            empty |= (kind == name) & np.asarray(pc.is_null(table.column(column)))
        self._set("n_prompts_without_content", [ids[i] for i in np.flatnonzero(empty)])

    def _attribute(self, table: pa.Table, counter: str, orphans: str, ids: list[str]) -> I64:
        """Row of each child's image (-1: unknown); counts children, orphans and deviating sizes."""
        rows = np.array([self._rows.get(key, -1) for key in table.column("key").to_pylist()], np.int64)
        self.per_set[counter] = len(ids)
        self._count(counter, rows, np.ones(len(rows), np.bool_))
        self._set(orphans, [ids[i] for i in np.flatnonzero(rows < 0)])
        sizes = [table.column(side).to_numpy() for side in ("height", "width")]
        wrong = (sizes[0] != self._at(self._height, rows)) | (sizes[1] != self._at(self._width, rows))
        self._count("n_sizes_wrong", rows, wrong)
        return rows

    def _boxes(self, table: pa.Table, rows: I64) -> None:
        x0, y0, x1, y1 = (table.column(c).to_numpy() for c in ("x0", "y0", "x1", "y1"))
        width, height, reach = self._at(self._width, rows), self._at(self._height, rows), self._tolerance
        inside = (x0 >= -reach) & (y0 >= -reach) & (x1 <= width + reach) & (y1 <= height + reach)
        is_box = ~np.isnan(x0)
        self._count("n_boxes_outside", rows, is_box & ~inside)
        # One pixel is a box with equal corners: the corners are inclusive.
        self._count("n_boxes_empty", rows, is_box & ~((x1 >= x0) & (y1 >= y0)))

    def _at(self, values: NDArray[np.float64], rows: I64) -> NDArray[np.float64]:
        return np.where(rows >= 0, values[np.maximum(rows, 0)] if len(values) else 0.0, np.nan)

    def _count(self, column: str, rows: I64, where: NDArray[np.bool_]) -> None:
        known = rows[where & (rows >= 0)]
        self.per_image[column] += np.bincount(known, minlength=len(self.per_image[column]))

    def _set(self, column: str, offenders: list[str]) -> None:
        self.per_set[column] = len(offenders)
        self._examples[self._name, column] = sorted(offenders)[:EXAMPLES]

    def _duplicates(self, ids: list[str], distinct: int) -> None:
        if len(ids) > distinct:
            seen: set[str] = set()
            twice = sorted({i for i in ids if i in seen or seen.add(i)})  # type: ignore[func-returns-value]
            self._examples.setdefault((self._name, "n_duplicate_ids"), []).extend(twice[:EXAMPLES])
            self.per_set["n_duplicate_ids"] += len(ids) - distinct


# ---- both ----


def _set_row(name: str, role: str, schema: str, **counts: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_SET_COLUMNS, 0)
    row.update({"set": name, "role": role, "schema": schema, "reject_fraction": 0.0, **counts})
    return row


def _schema(table: pa.Table, name: manifest.TableName) -> str:
    """`ok`, or what deviates from the contract's column types."""
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
            f"the table lacks columns: {', '.join(missing)}", file=path, cure="run the stage that writes it again"
        )
