"""Scoring a benchmark of the pipeline: prediction tables in, metrics JSON and per-instance table out.

File formats: docs/formats.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hqsam_base.atomic import atomic_folder, write_json
from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_metrics.base import (
    Outcome,
    Score,
    ScoreOptions,
    Units,
    load_score,
    plain,
    protocol_hash,
)
from hqsam_metrics.calibration import reliability

if TYPE_CHECKING:
    from hqsam_metrics.benchmark_data import Predictions

__all__ = ["ScoreOptions", "score_benchmark"]

VERSION = 1


def check_version(score: Score, options: ScoreOptions, where: str) -> None:
    """Checks that params.yaml asks for the version that the code has.

    Raises:
        UserError: it does not; a metric's version is what makes DVC score again.
    """
    if options.version != score.version:
        raise UserError(
            f"params.yaml: benchmarks.{where}.score.version is {options.version}, the code of "
            f"metric"
            f" {options.metric!r} is version {score.version}: set the key to {score.version} and "
            f"score again"
        )


def score_benchmark(
    *,
    benchmark: Path,
    predictions: Path,
    options: ScoreOptions,
    out_json: Path,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Scores all systems and prompt sets of one benchmark and model.

    Args:
        benchmark: `data/benchmarks/<benchmark>`.
        predictions: `data/predictions/<benchmark>-<model>`.
        options: the benchmark's `score` section.
        out_json: `reports/metrics/<benchmark>-<model>.json`.
        out: `data/scores/<benchmark>-<model>`, replaced as a whole.
        progress: told how far the work is.

    Returns:
        The content of `scores.json`.

    Raises:
        UserError: predictions that are missing, double, unknown, of the wrong size or malformed; a
            metric that does not fit the benchmark; another version in params.yaml than in the code.
    """
    from hqsam_metrics.benchmark_data import Benchmark, load_predictions
    from hqsam_metrics.matches_file import MatchesWriter

    data = Benchmark(benchmark)
    name = str(data.index.get("benchmark", benchmark.name))
    score = load_score(options.metric)
    check_version(score, options, name)
    if data.index["kind"] != score.kind:
        raise UserError(
            f"params.yaml: benchmarks.{name}.score.metric is {options.metric!r}, but the "
            f"benchmark is of kind"
            f" {data.index['kind']!r}"
        )
    info = _read_info(predictions)
    head = {"version": VERSION, "benchmark": name, "model": info["model"]}
    results, outcomes, diagnoses = [], [], []
    with atomic_folder(out) as folder:
        with MatchesWriter(folder) as writer:
            for prompt_set in sorted(_prompt_sets(data.index, benchmark)):
                for system in _scorable(info, prompt_set):
                    rows = load_predictions(data, predictions, prompt_set, system)
                    told = _prefixed(progress, f"{prompt_set}/{system}")
                    outcome = _evaluate(score, options, rows, told)
                    protocol = _protocol(score, options, info, rows)
                    results.append(_result(prompt_set, system, outcome, protocol))
                    diagnoses.append(
                        {"prompt_set": prompt_set, "system": system, **_diagnosis(rows, outcome)}
                    )
                    if outcome.matches is not None:
                        writer.add(prompt_set, system, outcome.matches)
                    # The matches of a large set are as large as its predictions: one system's at a
                    # time.
                    outcomes.append((prompt_set, system, replace(outcome, matches=None)))
        write_json(
            folder / "diagnosis.json", plain({**head, "results": diagnoses}), ascii_only=True
        )
        n_rows = _write_table(folder / "instances.parquet", outcomes, score.columns)
        summary = {**head, "n_rows": n_rows, "digest": sha256_file(folder / "instances.parquet")}
        write_json(folder / "scores.json", summary, ascii_only=True)
    write_json(out_json, plain({**head, "results": results}), ascii_only=True)
    return summary


def _diagnosis(rows: Predictions, outcome: Outcome) -> dict[str, Any]:
    """The metric's own; where its units are prompts, the calibration of the predicted IoU."""
    ious, units = outcome.units.values.get("iou"), outcome.units.unit
    if outcome.diagnosis or ious is None or units != rows.prompts["prompt_id"].to_pylist():
        return outcome.diagnosis
    return {"calibration": reliability(rows.iou_pred, ious)}


def _prompt_sets(index: dict[str, Any], folder: Path) -> list[str]:
    if "missing" in index and not index.get("prompt_sets"):
        return []  # files of the archive is unavailable: nothing was predicted
    if index.get("n_instances") == 0:
        # the ground truth is private, as YouTube-VIS's: the predictions are for its server
        return []
    sets = index.get("prompt_sets") or list(index.get("n_prompts", {}))
    if not sets:
        raise UserError(f"{folder / 'index.json'}: names no prompt set; index the benchmark again")
    return [str(name) for name in sets]


def predicted_systems(index: dict[str, Any], predictions: Path) -> dict[str, list[str]]:
    """Returns the systems that predicted each prompt set.

    Args:
        index: the benchmark's `index.json`.
        predictions: `data/predictions/<benchmark>-<model>`.

    Raises:
        UserError: there are no predictions.
    """
    info = _read_info(predictions)
    return {name: _scorable(info, name) for name in _prompt_sets(index, predictions)}


def _read_info(folder: Path) -> dict[str, Any]:
    from hqsam_base.json_stream import read_json

    info = read_json(folder / "predict.json")
    if not isinstance(info, dict) or not info.get("systems") or "model" not in info:
        raise UserError(f"{folder / 'predict.json'}: has no `systems` and `model`; predict again")
    return info


def _scorable(info: dict[str, Any], prompt_set: str) -> list[str]:
    """The systems that could use the prompts of a set; `predict.json` names those that could not."""
    lacking: dict[str, list[str]] = info.get("unsupported", {})
    return [system for system in info["systems"] if prompt_set not in lacking.get(system, ())]


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda done, total, what: progress(done, total, f"{prefix}: {what}")


def _evaluate(
    score: Score, options: ScoreOptions, rows: Predictions, progress: Progress
) -> Outcome:
    """Scores one system for one prompt set: at once, trial by trial, or click by click."""
    trials, clicks = (
        int(rows.benchmark.index.get(name, {}).get(rows.prompt_set, 0))
        for name in ("trials", "clicks")
    )
    if clicks:
        from hqsam_metrics.scores import _clicks

        return _clicks.outcome(rows, clicks, score.columns)
    parts = [rows.trial(n + 1) for n in range(trials)] or [rows]
    return mean_outcome([score.evaluate(part, options, progress=progress) for part in parts])


def mean_outcome(trials: Sequence[Outcome]) -> Outcome:
    """Returns the mean of several trials: of each value, and of each unit that all of them have.

    Units that each trial names by its own prompts are listed one after the other. There are no
    matches: a mean of several AP has no detections of its own.
    """
    first = trials[0]
    if len(trials) == 1:
        return first
    units = [trial.units for trial in trials]
    if all(one.unit == first.units.unit for one in units):
        values = {
            name: np.mean([one.values[name] for one in units], axis=0)
            for name in first.units.values
        }
        together = replace(first.units, values=values)
    else:
        together = Units(
            [key for one in units for key in one.key],
            [cluster for one in units for cluster in one.cluster],
            [unit for one in units for unit in one.unit],
            {n: np.concatenate([one.values[n] for one in units]) for n in first.units.values},
        )
    metrics: dict[str, float | None] = {}
    for name in first.metrics:
        found = [trial.metrics[name] for trial in trials]
        known = [value for value in found if value is not None]
        metrics[name] = math.fsum(known) / len(known) if len(known) == len(found) else None
    warnings = list(dict.fromkeys(text for trial in trials for text in trial.warnings))
    return Outcome(
        metrics,
        min(trial.n_expected for trial in trials),
        min(trial.n_scored for trial in trials),
        together,
        warnings,
    )


_FOLLOWED = {
    "tracker": "none: the box of the system's own mask in the frame before, of an empty one the "
    "last; at first the ground truth's"
}


def _protocol(
    score: Score, options: ScoreOptions, info: dict[str, Any], rows: Predictions
) -> dict[str, Any]:
    from hqsam_metrics.benchmark_data import prompts_digest

    data, masks = rows.benchmark, rows.prompts["rle"]
    trials = data.index.get("trials", {}).get(rows.prompt_set)
    clicks = data.index.get("clicks", {}).get(rows.prompt_set)
    detector = data.index.get("detector") if rows.prompt_set == "detector_box" else None
    if clicks is not None:
        from hqsam_metrics.scores import _clicks
    return {
        **score.protocol(options),
        "dataset_version": data.index.get("dataset_version"),
        "ground_truth_digest": data.ground_truth_digest,
        "images_digest": data.index.get("images_digest"),
        "resize": info.get("resize"),
        "precision": info.get("precision"),
        "device": info.get("device"),
        "arithmetic": info.get("arithmetic"),
        # Where no prompt holds a mask, what becomes of masks moves nothing.
        "mask_prompt": "none" if masks.null_count == len(masks) else info.get("mask_prompt"),
        "prompt_set": rows.prompt_set,
        "prompts_digest": prompts_digest(rows.prompts),
        "system": rows.system,
        "output": options.output,
        # The boxes are in the digest above; this says that they are not the published ones.
        **({} if detector is None else {"detector": detector["detector"]}),
        **({} if trials is None else {"trials": f"mean of {trials}"}),
        **({} if clicks is None else _clicks.rules(clicks)),
        **(_FOLLOWED if rows.prompt_set in data.index.get("tracked", []) else {}),
        # What a system's own code has in its rules: other people's models and refiners say it in
        # predict.json.
        **info.get("protocols", {}).get(rows.system, {}),
    }


def _result(
    prompt_set: str, system: str, outcome: Outcome, protocol: dict[str, Any]
) -> dict[str, Any]:
    return {
        "prompt_set": prompt_set,
        "system": system,
        "metrics": outcome.metrics,
        "n_expected": outcome.n_expected,
        "n_scored": outcome.n_scored,
        "warnings": outcome.warnings,
        "protocol": protocol,
        "protocol_hash": protocol_hash(protocol),
    }


def _write_table(
    path: Path, outcomes: list[tuple[str, str, Outcome]], numbers: Sequence[str]
) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ("prompt_set", "system", "key", "cluster", "unit")
    fields = [(name, pa.string()) for name in texts] + [(name, pa.float64()) for name in numbers]
    # Without an outcome (no prompt set is available) the table has its columns all the same.
    tables = [] if outcomes else [pa.schema(fields).empty_table()]
    for prompt_set, system, outcome in outcomes:
        units = outcome.units
        columns: dict[str, Any] = {
            "prompt_set": pa.array([prompt_set] * len(units.key), pa.string()),
            "system": pa.array([system] * len(units.key), pa.string()),
            "key": pa.array(units.key, pa.string()),
            "cluster": pa.array(units.cluster, pa.string()),
            "unit": pa.array(units.unit, pa.string()),
        }
        for name in numbers:
            # NaN is written as null: "undefined" must not depend on how a reader treats NaN.
            columns[name] = pa.array(units.values[name], pa.float64(), from_pandas=True)
        tables.append(pa.table(columns))
    order = [(name, "ascending") for name in ("prompt_set", "system", "key", "unit")]
    table = pa.concat_tables(tables).sort_by(order).combine_chunks()
    pq.write_table(table, path, compression="zstd")
    return len(table)
