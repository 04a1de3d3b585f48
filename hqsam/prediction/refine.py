"""Refine predictions that exist and score them beside the original ones: the rows "post-refinement" of the paper's Table 4.

The result is a folder of predictions like the predict stage's (docs/formats.md) with two systems,
the original one and
``<system>+<refiner>``, so the scorer of the pipeline treats both alike. The outputs of the stages
are only read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hqsam.prediction.passes import BenchmarkImages
from hqsam.refiners import Opened
from hqsam_base import atomic, rle
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_datasets.formats import manifest
from hqsam_metrics.base import ScoreOptions, load_score, plain, protocol_hash
from hqsam_metrics.benchmark import score_benchmark
from hqsam_metrics.stats import paired

VERSION = 1
Row = dict[str, Any]


def evaluate(
    *,
    benchmark: Path,
    predictions: Path,
    system: str,
    opened: Opened,
    options: ScoreOptions,
    progress: Progress,
    draws: int = 10_000,
) -> Row:
    """Refine every mask of one system and score it before and after.

    Args:
        benchmark: ``data/benchmarks/<benchmark>``.
        predictions: ``data/predictions/<benchmark>-<model>``.
        system: One of the systems that were predicted.
        opened: The refiner.
        options: The benchmark's ``score`` section.
        progress: told how far the work is, in images and then in masks scored.
        draws: Of the bootstrap.

    Returns:
        What ``hqsam refine`` writes: per prompt set the metrics of both with their protocols, and
        for each value of the instances the paired difference, refined minus original, with its 95 %
        interval.

    Raises:
        UserError: Predictions or benchmark are missing, damaged, or do not belong together.
    """
    with tempfile.TemporaryDirectory(prefix="hqsam-refine-") as name:
        folder = Path(name)
        refined = write_refined(
            benchmark, predictions, system, opened, folder / "predictions", progress
        )
        score_benchmark(
            benchmark=benchmark,
            predictions=folder / "predictions",
            options=options,
            out_json=folder / "metrics.json",
            out=folder / "scores",
            progress=progress,
        )
        scored = atomic.read_json(folder / "metrics.json")
        units = manifest.read_rows(folder / "scores" / "instances.parquet")
    columns = load_score(options.metric).columns
    sets = sorted({row["prompt_set"] for row in scored["results"]})
    results = [
        _result(scored["results"], units, name, system, refined, opened, columns, draws)
        for name in sets
    ]
    head = {
        "version": VERSION,
        "benchmark": scored["benchmark"],
        "model": scored["model"],
        "system": system,
    }
    return {**head, "refiner": opened.protocol, "results": results}


def write_refined(
    benchmark: Path, predictions: Path, system: str, opened: Opened, out: Path, progress: Progress
) -> str:
    """Write a folder of predictions with the system as it is and refined.

    Returns:
        The name of the refined system.

    Raises:
        UserError: See `evaluate`.
    """
    info = atomic.read_json(predictions / "predict.json", cure="run `dvc repro predict` first")
    if system not in info["systems"]:
        raise UserError(
            f"there are no predictions of {system}",
            file=predictions,
            cure=f"one of: {', '.join(info['systems'])}",
        )
    refined = f"{system}+{opened.protocol['name']}"
    parts = sorted(predictions.glob("part-*.parquet"))
    if not parts:
        raise UserError(
            "there are no part-*.parquet", file=predictions, cure="run `dvc repro predict` first"
        )
    table = pa.concat_tables([manifest.read_table(part) for part in parts])
    table = table.filter(pc.equal(table["system"], system))
    with BenchmarkImages(benchmark) as images, atomic.atomic_folder(out) as folder:
        better = list(_refined(images, table.to_pylist(), opened, refined, progress))
        both = pa.concat_tables([table, pa.Table.from_pylist(better, schema=table.schema)])
        manifest.write_table(folder / "part-00000.parquet", both)
        atomic.write_json(folder / "predict.json", {**info, "systems": [system, refined]})
    return refined


def _refined(
    images: BenchmarkImages, rows: list[Row], opened: Opened, name: str, progress: Progress
) -> Iterator[Row]:
    of_key: dict[str, list[Row]] = {}
    for row in rows:
        of_key.setdefault(row["key"], []).append(row)
    for number in range(len(images)):
        image = images.task(number).image
        mine = of_key.pop(image["key"], [])
        pixels = images.pixels(image) if mine else None
        for row in mine:
            mask = rle.decode(row["rle"], height=row["height"], width=row["width"])
            found = opened.refine(image=pixels, mask=mask)  # type: ignore[arg-type]
            yield {**row, "system": name, "rle": rle.encode(found), "mask_area": int(found.sum())}
        progress(number + 1, len(images), "images")
    if of_key:
        raise UserError(
            f"predictions of {len(of_key)} images that the benchmark does not have", key=min(of_key)
        )


def _result(
    scored: list[Row],
    units: list[Row],
    prompt_set: str,
    system: str,
    refined: str,
    opened: Opened,
    columns: Sequence[str],
    draws: int,
) -> Row:
    found = {row["system"]: row for row in scored if row["prompt_set"] == prompt_set}
    # The rule that made the masks belongs to the numbers: these are never taken for SAM's own.
    protocol = {**found[refined]["protocol"], "system": system, "refiner": opened.protocol}
    found[refined] |= {"protocol": protocol, "protocol_hash": protocol_hash(protocol)}
    here = [row for row in units if row["prompt_set"] == prompt_set]
    return {
        "prompt_set": prompt_set,
        "original": found[system],
        "refined": found[refined],
        "differences": _differences(here, system, refined, columns, draws),
    }


def _differences(
    units: list[Row], system: str, refined: str, columns: Sequence[str], draws: int
) -> dict[str, Row]:
    of_system = {
        s: {(u["key"], u["unit"]): u for u in units if u["system"] == s} for s in (system, refined)
    }
    pairs = [(unit, of_system[refined][name]) for name, unit in of_system[system].items()]
    out = {}
    for value in columns:
        # None is undefined: NaN.
        a, b = (
            np.array([u.get(value) for u in side], np.float64) for side in zip(*pairs, strict=True)
        )
        # The same draws for every value and in every run.
        found = paired(b - a, [unit["cluster"] for unit, _ in pairs], replicates=draws, seed=0)
        if found is not None:
            both = ~np.isnan(b - a)
            out[value] = {
                "a": float(a[both].mean()),
                "b": float(b[both].mean()),
                "difference": found.mean,
                # None: too few images for an interval.
                **plain({"low": found.low, "high": found.high, "p_value": found.p}),
                "n_pairs": found.n,
                "n_clusters": found.clusters,
            }
    return out
