"""Find one training sample, or one evaluation image, by its key in the outputs of the data stages."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_datasets.formats import manifest
from hqsam_datasets.formats.images import decode_image
from hqsam_datasets.formats.masks import decode_mask
from hqsam_datasets.formats.tar import TarReader, places, read_index
from hqsam_datasets.sample import Sample, parse_sample


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A sample, where it was found, and its plan if the augment stage has run.

    Attributes:
        sample: the decoded sample.
        where: the archive that holds it.
        views: the plan's views; empty without a plan.
        pictures: pictures of each view's prompts by name, uint8 [m, m].
        row: its row of the manifest; empty if the normalise stage's output is not there.
    """

    sample: Sample
    where: Path
    views: list[dict[str, Any]]
    pictures: list[dict[str, NDArray[np.uint8]]]
    row: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class FoundImage:
    """An evaluation image with its ground truth and prompts.

    Attributes:
        image: uint8 [H, W, 3].
        where: the archive that holds it.
        row: its row of `images.parquet`.
        truths: its rows of `instances.parquet`.
        prompts: its rows of `prompts.parquet`.
    """

    image: NDArray[np.uint8]
    where: Path
    row: dict[str, Any]
    truths: list[dict[str, Any]]
    prompts: list[dict[str, Any]]


def find_image(key: str, data: Path) -> FoundImage | None:
    """Look for `key` in `data/benchmarks/*`; None if no evaluation set has it."""
    for path in sorted(data.glob("benchmarks/*/images.parquet")):
        rows = _rows_of(key, path)
        if rows:
            folder, row = path.parent, rows[0]
            with TarReader(folder / row["shard"]) as reader:
                image = decode_image(reader.read(row["member"]))
            truths, prompts = (
                _rows_of(key, folder / f"{name}.parquet") for name in ("instances", "prompts")
            )
            return FoundImage(image, folder / row["shard"], row, truths, prompts)
    return None


def _rows_of(key: str, path: Path) -> list[dict[str, Any]]:
    """Read the rows of one key; the table is not read whole: LVIS has millions."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path, filters=pc.field("key") == key).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        problem = f"the table cannot be read: {str(error).splitlines()[0][:120]}"
        raise UserError(problem, file=path, key=key, cure="run the index stage again") from error
    return rows


def find_sample(key: str, data: Path) -> Found:
    """Look for `key` in `data/shards` (with its plan in `data/prompts`), else in `data/samples/*`.

    Raises:
        UserError: if there is no such key; the message names similar ones.
    """
    row, archive = _manifest_row(key, data)
    place = _in_shards(key, data / "shards")
    if place is not None:
        archive, *span = place
        with TarReader(archive) as reader:
            files = reader.read_sample(*span)[1]
    elif archive is not None:
        with TarReader(archive) as reader:
            spans = reader.spans()
            files = reader.read_sample(*spans[key])[1] if key in spans else {}
    else:
        raise _unknown(key, data)
    views, pictures = _plan(key, data / "prompts")
    return Found(parse_sample(key, files), archive, views, pictures, row)


def _manifest_row(key: str, data: Path) -> tuple[dict[str, Any], Path | None]:
    for path in sorted(data.glob("samples/*/manifest.parquet")):
        if not key.startswith(f"{path.parent.name}_"):
            continue
        for row in manifest.read_rows(path):
            if row["key"] == key:
                return row, path.parent / row["shard"]
    return {}, None


def _in_shards(key: str, folder: Path) -> tuple[Path, int, int] | None:
    if not (folder / "index.json").is_file():
        return None
    found = (place for place in places(read_index(folder)) if place[0] == key)
    return next(((folder / name, offset, end) for _, name, offset, end in found), None)


def _plan(
    key: str, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, NDArray[np.uint8]]]]:
    place = _in_shards(key, folder)
    if place is None:
        return [], []
    with TarReader(place[0]) as reader:
        files = reader.read_sample(*place[1:])[1]
    views: list[dict[str, Any]] = json.loads(files["json"])["views"]
    pictures = []
    for view in views:  # by name: `noise0.png` is the picture `noise` of view 0
        tail = f"{view['view']}.png"
        names = (name.removesuffix(tail) for name in files if name.endswith(tail))
        pictures.append(
            {n: decode_mask(files[n + tail]).mask for n in names if not n[-1:].isdigit()}
        )
    return views, pictures


def _unknown(key: str, data: Path) -> UserError:
    tables = [*data.glob("samples/*/manifest.parquet"), *data.glob("benchmarks/*/images.parquet")]
    known = {row["key"] for path in sorted(tables) for row in manifest.read_rows(path, ["key"])}
    if (data / "shards" / "index.json").is_file():
        known.update(
            key for shard in read_index(data / "shards")["shards"] for key in shard["keys"]
        )
    keys = sorted(known)
    close = difflib.get_close_matches(key, keys, n=3, cutoff=0.5)
    if not keys:
        return UserError(
            "no samples are here yet",
            file=data,
            key=key,
            cure="run the normalise or the index stage",
        )
    hint = f"similar keys: {', '.join(close)}" if close else f"keys look like {keys[0]}"
    return UserError("there is no sample of this key", file=data, key=key, cure=hint)
