"""Every instance of a benchmark as columns: its class and size, and the quality of both systems' masks."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.safe_text import cell
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.sources import read_optional
from hqsam_pipelines.report.units import side_by_side

if TYPE_CHECKING:
    import pandas as pd

SIZES = (("below 1 %", 0.0, 0.01), ("1 to 10 %", 0.01, 0.1), ("above 10 %", 0.1, np.inf))
"""Bins of the share of its image that an object covers: name, least, below."""


def diagnosis(run: Run, model: str, benchmark: str) -> list[dict[str, Any]]:
    """The entries of a benchmark's ``diagnosis.json``; empty where it was scored before there was one."""
    found = read_optional(run.folder("scores", benchmark, model) / "diagnosis.json")
    return list(found.get("results", []))


def instances(run: Run, model: str, benchmark: str) -> pd.DataFrame | None:
    """All instances that both systems have a value of, sorted by prompt set, image and unit.

    Returns:
        prompt_set, key, cluster, unit (categories), ``class`` (category, empty: none known), share
        (of the image that the object covers, NaN: unknown), sam and hq (the metric's pictured
        quantity, as stored); None for a metric that pictures nothing.
    """
    quantity = run.score(benchmark).pictured
    if quantity is None:
        return None
    import pandas as pd

    systems = (run.baseline(benchmark), run.hq_system(benchmark))
    both = side_by_side(run.units(benchmark, model), *systems, quantity)
    rows = _objects_of(run, benchmark, both["unit"].cat.categories)
    # Row -1, the last one, is for units that are no object's.
    unknown = pd.DataFrame({"class": [""], "share": [np.nan]})
    known = pd.concat([_objects(run, model, benchmark).fillna({"class": ""}), unknown])
    known = known.astype({"class": "category"})
    both[["class", "share"]] = known.iloc[rows[both["unit"].cat.codes]].set_index(both.index)
    return both


LISTED = 100_000
"""Instances that the page lists at most; of more, those that differ most."""


def listing(run: Run, model: str, shown: Mapping[tuple[str, str, str], int]) -> Listing:
    """The instances of all benchmarks for the page's list.

    Args:
        run: the results.
        model: whose.
        shown: pictures of the page: (benchmark, prompt set, unit) to the picture's place.
    """
    import pandas as pd

    frames, total = [], 0
    for benchmark in run.benchmarks:
        frame = instances(run, model, benchmark)
        quantity = run.score(benchmark).pictured
        if frame is not None and quantity is not None:
            scale, total = quantity.scale, total + len(frame)
            frame = frame.assign(
                benchmark=benchmark,
                sam=scale.factor * frame["sam"],
                hq=scale.factor * frame["hq"],
                gain=scale.gain(1.0) * scale.factor * (frame["hq"] - frame["sam"]),
            )
            frame = _most_changed(frame)
            texts = ("prompt_set", "key", "cluster", "unit", "class")
            frames.append(frame.astype(dict.fromkeys(texts, "str")))
    if not frames:
        return Listing(0, 0, "", "")
    every = _most_changed(pd.concat(frames, ignore_index=True))
    places = [
        shown.get(place, -1)
        for place in zip(every["benchmark"], every["prompt_set"], every["unit"], strict=True)
    ]
    names = ["benchmark", "prompt_set", "key", "unit", "class", "share", "sam", "hq", "gain"]
    cells = {name: every[name].astype(str).map(cell) for name in ("key", "unit", "class")}
    csv: str = every.assign(**cells)[names].to_csv(
        index=False, float_format="%.4f", lineterminator="\n"
    )
    return Listing(len(every), total, packed(every, places), csv)


@dataclass(frozen=True)
class Listing:
    """The list of instances.

    Attributes:
        n: instances in it.
        total: instances that there are.
        packed: what the page's script reads: columns as JSON, compressed, base64.
        csv: the same for people.
    """

    n: int
    total: int
    packed: str
    csv: str


def _most_changed(frame: pd.DataFrame) -> pd.DataFrame:
    """At most `LISTED` rows, the most changed of all, in the order they had."""
    if len(frame) <= LISTED:
        return frame
    order = np.argsort(-frame["gain"].abs().to_numpy(), kind="stable")[:LISTED]
    return frame.iloc[np.sort(order)].reset_index(drop=True)


def packed(frame: pd.DataFrame, pictures: Sequence[int]) -> str:
    """Columns for the page's script: numbers as tenths, texts as places in a list of the distinct ones; compressed, base64.

    Args:
        frame: as `instances` gives it, with benchmark and gain, values as shown.
        pictures: the place of each row's picture on the page, -1 for none.
    """
    columns: dict[str, Any] = {"picture": list(pictures)}
    sets = frame["benchmark"] + "\n" + frame["prompt_set"].astype(str)
    texts_of = {"set": sets, "class": frame["class"], "image": frame["key"]}
    for name, texts in texts_of.items():
        distinct, place = np.unique(texts.astype(str).to_numpy(), return_inverse=True)
        columns[name] = place.reshape(-1).tolist()
        columns[f"{name}_names"] = distinct.tolist()
    columns["set_names"] = [
        f"{paper.title(benchmark)}, {prompt_set.replace('_', ' ')}"
        for benchmark, _, prompt_set in (text.partition("\n") for text in columns["set_names"])
    ]
    columns["unit"] = frame["unit"].astype(str).tolist()
    for name in ("sam", "hq", "gain"):
        columns[name] = np.rint(10 * frame[name].to_numpy(float)).astype(int).tolist()
    share = np.rint(1000 * frame["share"].to_numpy(float))
    columns["size"] = np.where(np.isnan(share), -1, share).astype(int).tolist()
    text = json.dumps(columns, separators=(",", ":"), ensure_ascii=True)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode("ascii")


def _objects(run: Run, model: str, benchmark: str) -> pd.DataFrame:
    """Class and share of every annotated object, in the order of the benchmark's table."""
    columns = ["category_id", "area", "height", "width"]
    frame = _table(run, benchmark, "instances", columns).to_pandas()
    names = {
        entry["id"]: entry["name"]
        for result in diagnosis(run, model, benchmark)
        for entry in result.get("classes", [])
        if "id" in entry
    }
    share = frame["area"] / (frame["height"].astype(float) * frame["width"])
    found: pd.DataFrame = frame[[]].assign(
        **{"class": frame["category_id"].map(names)}, share=share
    )
    return found


def _objects_of(run: Run, benchmark: str, units: pd.Index[str]) -> NDArray[np.int64]:
    """The row of each unit's object: of a prompt the one that it was drawn for; a unit may be an object itself; -1: none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Arrow's tables of texts take a tenth of the memory of pandas' indexes.
    prompts = _table(run, benchmark, "prompts", ["prompt_id", "instance_id"]).drop_null()
    names = pa.array(units)
    drawn = pc.index_in(names, prompts["prompt_id"].combine_chunks())
    objects = pc.coalesce(prompts["instance_id"].combine_chunks().take(drawn), names)
    known = _table(run, benchmark, "instances", ["instance_id"])["instance_id"].combine_chunks()
    rows: NDArray[np.int64] = pc.index_in(objects, known).fill_null(-1).to_numpy().astype(np.int64)
    return rows


def _table(run: Run, benchmark: str, name: str, columns: list[str]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run.root / "data" / "benchmarks" / benchmark / f"{name}.parquet"
    try:
        return pq.read_table(path, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"the benchmark's table cannot be read: {error}",
            file=path,
            cure="run `dvc repro index` or `dvc pull`",
        ) from error
