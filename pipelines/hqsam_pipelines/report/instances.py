"""Every instance of a benchmark as columns: its class and size, and the quality of both systems' masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hqsam_base.errors import UserError
from hqsam_pipelines.report.results import Run, quantity_values
from hqsam_pipelines.report.sources import read_optional

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
    frame = run.units(benchmark, model)
    keys = ["prompt_set", "key", "cluster", "unit"]
    sides = []
    for name, system in (("sam", run.baseline(benchmark)), ("hq", run.hq_system(benchmark))):
        mine = frame[frame["system"] == system]
        sides.append(
            mine[keys].assign(**{name: quantity_values(mine, quantity)}).set_index(keys)[name]
        )
    both = sides[0].to_frame().join(sides[1].to_frame(), how="inner").dropna().sort_index()
    both = both.reset_index()
    truth = _objects(run, model, benchmark).reindex(_objects_of(run, benchmark, both["unit"]))
    return both.assign(
        **{"class": truth["class"].fillna("").to_numpy(), "share": truth["share"].to_numpy()}
    )


def _objects(run: Run, model: str, benchmark: str) -> pd.DataFrame:
    """Class and share of every annotated object, by its id."""
    frame = _table(run, benchmark, "instances", ["instance_id", "category_id", "area", "height"])
    width = _table(run, benchmark, "instances", ["width"])["width"]
    names = {
        entry["id"]: entry["name"]
        for result in diagnosis(run, model, benchmark)
        for entry in result.get("classes", [])
        if "id" in entry
    }
    share = frame["area"] / (frame["height"].astype(float) * width)
    found = frame.assign(share=share, **{"class": frame["category_id"].map(names)})
    return found.drop_duplicates("instance_id").set_index("instance_id")[["class", "share"]]


def _objects_of(run: Run, benchmark: str, units: pd.Series[str]) -> pd.Series[str]:
    """The object of each unit: of a prompt the one that it was drawn for; a unit may be an object itself."""
    prompts = _table(run, benchmark, "prompts", ["prompt_id", "instance_id"]).dropna()
    drawn = prompts.drop_duplicates("prompt_id").set_index("prompt_id")["instance_id"]
    return units.map(drawn).fillna(units)


def _table(run: Run, benchmark: str, name: str, columns: list[str]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = run.root / "data" / "benchmarks" / benchmark / f"{name}.parquet"
    try:
        frame: pd.DataFrame = pq.read_table(path, columns=columns, use_threads=False).to_pandas()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"the benchmark's table cannot be read: {error}",
            file=path,
            cure="run `dvc repro index` or `dvc pull`",
        ) from error
    return frame
