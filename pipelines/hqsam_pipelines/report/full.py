"""Every model, benchmark, prompt set and system of a run, one number a line; and a committed run of `sample_full`.

The profile `sample_full` takes several times as long as the sample itself, so the sample's page
shows a committed run of it (``data/full_sample.csv``, a copy of that run's
`reports/tables/all_numbers.csv`) and says so.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from hqsam_pipelines import ablations
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.paper import HQ4
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.rows import metric_names
from hqsam_pipelines.report.tables import csv_text, number

COMMAND = "hqsam profile sample_full && hqsam repro"
SIZE = "a sixth of the epochs"
COLUMNS = ("model", "benchmark", "prompt_set", "system", "metric", "value")
_METRICS = ("mIoU", "mBIoU")


@dataclass(frozen=True)
class Number:
    """One number, as people read it (fractions times 100)."""

    model: str
    benchmark: str
    prompt_set: str
    system: str
    metric: str
    value: float


def numbers(run: Run) -> list[Number]:
    """The headline of every benchmark and prompt set, for every system of the first model and HQ-SAM of the others."""
    found = []
    for model, benchmark in itertools.product(run.models, run.benchmarks):
        first, score = model == run.models[0], run.score(benchmark)
        systems = [s.name for s in run.systems] if first else [run.hq_system(benchmark)]
        for prompt_set in run.prompt_sets(benchmark, model):
            every = metric_names(run, model, benchmark, prompt_set)
            headline = [name for name in score.headline if name in every]
            metrics = headline or [name for name in every if not score.value(name).detail]
            for system, metric in itertools.product(systems, metrics):
                result = run.find(benchmark, model, prompt_set, system)
                value = None if result is None else result.shown(metric)
                if value is not None:
                    found.append(Number(model, benchmark, prompt_set, system, metric, value))
    return found


def table_csv(found: Sequence[Number]) -> str:
    """The numbers as CSV with the columns `COLUMNS`."""
    return csv_text(COLUMNS, [[*astuple(one)[:-1], number(one.value)] for one in found])


def recorded(profile: str) -> list[Number]:
    """The committed run of `sample_full`; none for another profile than the sample."""
    file = resources.files("hqsam_pipelines.report").joinpath(f"data/full_{profile}.csv")
    if not file.is_file():
        return []
    lines = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))
    return [
        Number(
            line["model"],
            line["benchmark"],
            line["prompt_set"],
            line["system"],
            line["metric"],
            float(line["value"]),
        )
        for line in lines
    ]


def mean_of_four(
    found: Sequence[Number], model: str, prompt_set: str, system: str, metric: str
) -> float | None:
    """The mean over the four HQ sets; None unless all four have the number."""
    values = [
        one.value
        for one in found
        if (one.model, one.prompt_set, one.system, one.metric)
        == (model, prompt_set, system, metric)
        and one.benchmark in HQ4
    ]
    return sum(values) / len(HQ4) if len(values) == len(HQ4) else None


def context(run: Run, found: Sequence[Number]) -> list[dict[str, Any]]:
    """Prompt sets down, systems across, for the page: of this run, and of the committed one of its profile."""
    earlier = recorded(str(run.params.get("profile", "")))
    tables = [
        _table("Prompt sets and systems, mean of the four HQ sets", run, found),
        _table("The same, every prompt set", run, earlier),
    ]
    if tables[1] is not None:
        tables[1]["recorded"] = COMMAND
        tables[1]["size"] = SIZE
    return [table for table in tables if table is not None]


def _table(title: str, run: Run, found: Sequence[Number]) -> dict[str, Any] | None:
    model = run.models[0]
    systems = list(dict.fromkeys(one.system for one in found if one.model == model))
    lines = []
    for prompt_set in dict.fromkeys(one.prompt_set for one in found if one.benchmark in HQ4):
        values = [
            mean_of_four(found, model, prompt_set, system, metric)
            for system in systems
            for metric in _METRICS
        ]
        if any(value is not None for value in values):
            lines.append([prompt_set, *(number(value, 1) for value in values)])
    if len(lines) < 2:  # a single prompt set is in the tables above
        return None
    groups = [{"name": "", "span": 1}]
    groups += [{"name": run.system(system).label, "span": len(_METRICS)} for system in systems]
    return {
        "title": title,
        "groups": groups,
        "columns": ["Prompt set", *_METRICS * len(systems)],
        "lines": lines,
    }


def markdown(found: Sequence[Number], root: Path) -> str:
    """The models of a run of `sample_full` set by set, ours and in brackets the paper's, for docs/ablations.md."""
    heads = ["System", *(f"{paper.title(name)} {metric}" for name in HQ4 for metric in _METRICS)]
    overlays = {row.name: row for row in ablations.rows(root)}
    first = found[0].model
    base = ("SAM", "2: SAM", first, "sam"), ("HQ-SAM", "2: HQ-SAM", first, "hq_token")
    more = [name for name in dict.fromkeys(one.model for one in found) if name != first]
    rows = [(overlays[n].title, overlays[n].paper, n, "hq_token") for n in more]
    values = {tuple(astuple(one)[:-1]): one.value for one in found}
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)]]
    for title, source, model, system in (*base, *rows):
        table, _, name = source.partition(": ")
        cells = []
        for benchmark, metric in itertools.product(HQ4, _METRICS):
            ours = values.get((model, benchmark, "gt_box", system, metric))
            theirs = paper.row_value(table, name, benchmark, metric)
            cells.append(
                number(ours, 1) + (f" ({number(theirs, 1)})" if theirs is not None else "")
            )
        lines.append([title, *cells])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
