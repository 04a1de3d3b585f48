"""Several trainings of the active profile that differ in nothing but their seed: `hqsam repro seeds`.

A model NAME is trained again as NAME_seed1, NAME_seed2, ..., with the seeds after its own, on the
same shards, views and prompts. What the scores of these models are is kept in reports/seeds, beside
the digests of the metrics that they belong to, so that `hqsam compare` finds them at a commit:

    reports/seeds/seeds.json                        seeds a model, digests of reports/metrics/*.json
    reports/seeds/<benchmark>-<model>_seed1/        metrics.json and the tables of data/scores
    reports/seeds/spread.md                         mean and spread of the headline rows
"""

from __future__ import annotations

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hqsam_base.atomic import atomic_folder, write_json, write_text
from hqsam_base.errors import UserError
from hqsam_metrics.matches_file import MATCHES, TRUTH
from hqsam_pipelines.ablations import merge, written
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import parse_metrics

FOLDER = "reports/seeds"
INDEX = f"{FOLDER}/seeds.json"
METRICS, INSTANCES = "metrics.json", "instances.parquet"
TABLES = (INSTANCES, MATCHES, TRUTH)

COMMENT = (
    "Made by `hqsam repro seeds`, which puts the file before it back when it ends. If it was "
    "killed, run it again, or `hqsam profile NAME --force`."
)


def another(model: str, number: int) -> str:
    """Returns the name of a model's training with the `number`th further seed."""
    return f"{model}_seed{number}"


def trained(params: Params) -> list[str]:
    """Returns the models of a profile that train.

    Raises:
        UserError: there is none.
    """
    found = [name for name in params.models if params.train(name).epochs]
    if not found:
        raise UserError(
            "no model of this profile trains, so no seed matters",
            file=params.file,
            key="train.epochs",
            cure="choose a profile that trains: `hqsam profile` lists them",
        )
    return found


def compose(params: Params, n: int) -> bytes:
    """Returns a params.yaml that trains every model of a profile with `n` seeds, its own first.

    Raises:
        UserError: no model trains, or a model has the name of another one's further seed.
    """
    models: dict[str, Any] = {}
    for name, number in product(trained(params), range(1, n)):
        new = another(name, number)
        if new in params.models:
            raise UserError(
                "this name is needed for a further seed",
                file=params.file,
                key=f"models.{new}",
                cure="call the model something else",
            )
        seed = params.training_seed(name) + number
        models[new] = {**params.entry("models", name), "seed": seed}
    return written(merge(params.raw, {"models": models}), params.profile, COMMENT)


def keep(root: Path, params: Params, n: int) -> None:
    """Copies what the models of `compose` scored to `FOLDER`.

    Args:
        root: the repository, after a run of the composed profile.
        params: the profile that was composed from.
        n: seeds a model.
    """
    reports = root / "reports" / "metrics"
    digests = {}
    with atomic_folder(root / FOLDER) as folder:
        for benchmark, model in product(params.benchmarks, trained(params)):
            run = f"{benchmark}-{model}"
            digests[run] = digest((reports / f"{run}.json").read_bytes())
            for number in range(1, n):
                new = f"{benchmark}-{another(model, number)}"
                (folder / new).mkdir()
                shutil.copy2(reports / f"{new}.json", folder / new / METRICS)
                for table in TABLES:
                    if (root / "data" / "scores" / new / table).is_file():
                        shutil.copy2(root / "data" / "scores" / new / table, folder / new / table)
        write_text(folder / "spread.md", spread(root, params, n))
        write_json(folder / Path(INDEX).name, {"seeds": n, "metrics": digests})


def digest(content: bytes) -> str:
    """Returns what tells one metrics file from another: MD5, as in dvc.lock."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def spread(root: Path, params: Params, n: int) -> str:
    """Returns mean and spread of the headline rows over the seeds, as a Markdown table.

    Args:
        root: the repository, after a run of the profile that `compose` makes.
        params: the profile that was composed from.
        n: seeds a model.
    """
    lines = [
        f"{n} trainings that differ in their seed alone; SD: standard deviation over the seeds.",
        "",
        "| row | mean | SD | least | most |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, values in _headlines(root, params, n):
        figures = (np.mean(values), np.std(values, ddof=1), min(values), max(values))
        lines.append(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    return "\n".join(lines) + "\n"


def _headlines(root: Path, params: Params, n: int) -> Iterator[tuple[str, list[float]]]:
    """Yields each headline row of HQ-SAM with its value for each seed; the mean of the four HQ sets first."""
    several = len(trained(params)) > 1
    four: dict[str, dict[str, list[float]]] = defaultdict(dict)
    rows: list[tuple[str, list[float]]] = []
    for model, benchmark in product(trained(params), params.benchmarks):
        output = params.score(benchmark).output
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for name in (model, *(another(model, number) for number in range(1, n))):
            path = root / "reports" / "metrics" / f"{benchmark}-{name}.json"
            for result in parse_metrics(path.read_bytes(), str(path)):
                for metric in result.score.headline if result.system == output else ():
                    value = result.shown(metric)
                    if value is not None:
                        found[result.prompt_set, metric].append(value)
        for (prompt_set, metric), values in found.items():
            row = f"{prompt_set} {metric}" + (f" ({model})" if several else "")
            if len(values) == n:
                rows.append((f"{paper.title(benchmark)} {row}", values))
                if benchmark in paper.HQ4:
                    four[row][benchmark] = values
    for row, parts in four.items():
        if len(parts) == len(paper.HQ4):
            means = np.mean(list(parts.values()), axis=0)
            yield f"{paper.title(paper.HQ4_MEAN)} {row}", [float(value) for value in means]
    yield from rows
