"""All 388 numbers of the paper, each beside ours where this run has it, else with the command that gives it.

`Published` is a line of ``data/paper_tables.csv``; `Cell` sets our number beside it and says how far
the two are comparable: same protocol and data, other data (the embedded sample), another model (a
miniature), or another protocol, by its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hqsam_pipelines import ablations
from hqsam_pipelines.report import cost, full, paper, sources
from hqsam_pipelines.report.ablations import SIZE as GRID_SIZE
from hqsam_pipelines.report.ablations import recorded
from hqsam_pipelines.report.comparable import OTHER_DATA, SAME, words
from hqsam_pipelines.report.paper import HQ4, HQ4_MEAN, Published
from hqsam_pipelines.report.results import Result, Run
from hqsam_pipelines.report.tables import csv_text, number

TITLES = {
    "1": "Training and inference",
    "2": "HQ-Output Token and its rivals, four HQ sets",
    "3": "Which features are fused",
    "4": "Fine-tuning and post-refinement",
    "5": "UVO",
    "6": "BIG",
    "7": "COCO and LVIS",
    "8": "HQ-YTVIS",
    "9": "Adapters and LoRA",
    "10": "Backbones",
    "11": "YouTube-VIS 2019",
    "12": "DAVIS 2017",
    "13": "Noise in the box prompts",
    "14": "Composition of HQSeg-44K",
    "15": "Training data",
    "16": "Training without DIS and ThinObject-5K",
    "text-4.2": "Section 4.2",
    "text-4.3": "Section 4.3",
    "repo": "The authors' repository",
}

COLUMNS = (
    "table",
    "system",
    "backbone",
    "benchmark",
    "protocol",
    "metric",
    "paper",
    "ours",
    "comparable",
    "command",
)

# What the paper calls a system when it means SAM or HQ-SAM, or a row of another table.
_SAM = {"SAM", "SAM (SA-1B)", "MobileSAM", "Grounded-SAM"}
_HQ_SAM = {
    "HQ-SAM",
    "Light HQ-SAM",
    "Grounded-HQ-SAM",
    "HQ-SAM trained on HQSeg-44K",
    "HQ-SAM (default HQSeg-44K)",
    "mask feature + final-layer + early-layer (HQ-SAM)",
}
_SAME_ROW = {
    "4: Add Context Token": "2: SAM + Context Token",
    "3: SAM mask feature, no fusion conv": "2: SAM + HQ-Output Token, SAM mask feature",
}
_REFINERS = {"CascadePSP post-refinement": "cascadepsp", "CRM post-refinement": "crm"}
_SOURCES = {
    "DIS": "dis5k",
    "ThinObject-5K": "thinobject5k",
    "FSS": "fss1000",
    "DUTS": "duts",
    "ECSSD": "ecssd",
    "MSRA-10K": "msra10k",
}
_BENCHMARKS = {theirs: ours for ours, theirs in paper.PAPER_NAMES.items()} | {
    "SGinW-mean-25": "sginw"
}
_NOISE = "noise scale "
_SETUP = ("inference", "training", "training data")


@dataclass(frozen=True)
class Cell:
    """A number of the paper and ours.

    Attributes:
        published: the paper's.
        ours: as shown; None where this run has none.
        comparable: how far the two are; "not run" without ours.
        command: what makes our number.
    """

    published: Published
    ours: float | None
    comparable: str
    command: str


NOT_RUN = "not run"


def cells(run: Run) -> list[Cell]:
    """Every number of the paper, in the order of its tables."""
    finder = _Finder(run)
    return [finder.cell(one) for one in paper.published()]


class _Finder:
    """Looks for our counterparts of the paper's numbers in one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        there = (run.root / ablations.FOLDER).is_dir()
        self._rows = {row.paper: row.name for row in ablations.rows(run.root)} if there else {}
        self._recorded = {
            row.paper_row: row for row in recorded(str(run.params.get("profile", "")))
        }
        self._full = full.recorded(str(run.params.get("profile", "")))
        self._full_values = {
            (one.model, one.benchmark, one.prompt_set, one.system, one.metric): one.value
            for one in self._full
        }
        self._data = "" if not sources.embedded(run) else OTHER_DATA

    def cell(self, one: Published) -> Cell:
        """Our counterpart of one number."""
        if one.benchmark in _SETUP:
            ours, comparable = self._setup(one)
        elif one.metric in ("total_MiB", "trainable_MiB"):
            ours, comparable = self._parameters(one)
        else:
            ours, comparable = self._metric(one)
        if ours is None:
            comparable = NOT_RUN
        return Cell(one, ours, comparable, self._command(one))

    def _setup(self, one: Published) -> tuple[float | None, str]:
        """Size and speed, how training was set up, and the samples of its data."""
        if one.benchmark == "inference":
            system = "SAM" if one.system in _SAM else "HQ-SAM"
            names = ("learnable_MiB", "total_MiB", "fps", "memory_GB")
            for row in cost.rows():
                if (row.backbone, row.system) == (one.backbone, system):
                    counted = one.metric in names[:2]
                    comparable = SAME if counted else "other machine (a processor)"
                    return row.ours()[names.index(one.metric)], comparable
            return None, ""
        if one.benchmark == "training":
            model = self._run.models[0]
            meta = self._meta(model)
            options = meta.get("options", {})
            found = {
                "gpus": options.get("processes"),
                "batch": options.get("batch_size"),
                "iterations": meta.get("steps"),
            }
            value = found.get(one.metric)
            ours = None if value is None else float(value)
            return ours, words(self._run, model, one.backbone)
        counts = {row["name"]: int(row["n_samples"]) for row in sources.sources(self._run)}
        wanted = [_SOURCES[one.system]] if one.system in _SOURCES else list(_SOURCES.values())
        if not all(name in counts for name in wanted):
            return None, ""
        return float(sum(counts[name] for name in wanted)), self._data or SAME

    def _parameters(self, one: Published) -> tuple[float | None, str]:
        """Sizes of Table 9: what trains, as the model's file counts it, and the whole."""
        model = self._model(one)
        base = {row.backbone: row for row in cost.rows() if row.system == "SAM"}.get(one.backbone)
        if one.system in _SAM:
            return (base.ours()[1], SAME) if base else (None, "")
        count = self._meta(model).get("n_parameters") if model else None
        if model is None or count is None:
            return None, ""
        trained = count * cost.MIB_A_PARAMETER
        if one.metric == "trainable_MiB":
            return trained, words(self._run, model, one.backbone)
        if self._run.backbone(model) != one.backbone or base is None:
            return None, ""
        return base.ours()[1] + trained, SAME

    def _meta(self, model: str) -> Mapping[str, Any]:
        return sources.read_optional(self._run.root / "models" / model / "meta.json")

    def _metric(self, one: Published) -> tuple[float | None, str]:
        benchmark = _BENCHMARKS.get(one.benchmark, one.benchmark)
        model = self._model(one)
        names = HQ4 if benchmark == HQ4_MEAN else (benchmark,)
        if model is not None:
            found = [self._result(one, name, model) for name in names]
            metric = paper.our_metric(benchmark, one.metric)
            shown = [None if r is None else r.shown(metric) for r in found]
            known = [value for value in shown if value is not None]
            if len(known) == len(names):
                results = [r for r in found if r is not None]
                return sum(known) / len(known), words(self._run, model, one.backbone, results)
        ours, comparable = self._from_the_full_sample(one, benchmark)
        return (ours, comparable) if ours is not None else self._from_the_grid(one, benchmark)

    def _result(self, one: Published, benchmark: str, model: str) -> Result | None:
        run = self._run
        if benchmark not in run.benchmarks:
            return None
        sets = run.prompt_sets(benchmark, model)
        if _NOISE in one.protocol:
            scale = one.protocol.rpartition(_NOISE)[2]
            wanted = "gt_box" if float(scale) == 0 else f"box_noise_{scale}"
        else:
            wanted = next((s for s in sets if paper.is_protocol(one.protocol, s)), "")
        refiner = _REFINERS.get(one.system)
        if one.system in _SAM:
            names = [run.baseline(benchmark)]
        elif refiner is None:
            names = [run.hq_system(benchmark)]
        else:
            entries = (run.params.get("systems") or {}).items()
            names = [n for n, e in entries if e.get("refiner") == refiner and e["of"] == "sam"]
        system = next((s for s in run.systems if s.name in names), None)
        return run.find(benchmark, model, wanted, system.name) if system else None

    def _model(self, one: Published) -> str | None:
        """The model of the run that stands for the row: of the same backbone, or the miniature for ViT-L."""
        run = self._run
        of_row = f"{one.table}: {one.system}"
        own = self._rows.get(_SAME_ROW.get(of_row, of_row))
        if own is not None:
            return own if own in run.models else None
        if one.system not in _SAM | _HQ_SAM and one.system not in _REFINERS:
            return None
        plain = [name for name in run.models if name not in self._rows.values()]
        for name in plain:
            if run.backbone(name) == one.backbone:
                return name
        miniature = [n for n in plain if paper.reference_backbone(run.backbone(n)) == one.backbone]
        return miniature[0] if miniature else None

    def _from_the_full_sample(self, one: Published, benchmark: str) -> tuple[float | None, str]:
        """A value of one of the four sets, or their mean, of the committed run of `sample_full`."""
        of_row = f"{one.table}: {one.system}"
        model = self._rows.get(_SAME_ROW.get(of_row, of_row))
        system = self._run.hq_system(HQ4[0])
        if model is None:
            return None, ""
        if benchmark == HQ4_MEAN:
            value = full.mean_of_four(self._full, model, "gt_box", system, one.metric)
        else:
            value = self._full_values.get((model, benchmark, "gt_box", system, one.metric))
        return value, self._committed(f"{full.SIZE}; committed run of sample_full")

    def _from_the_grid(self, one: Published, benchmark: str) -> tuple[float | None, str]:
        """A mean over the four sets, or COCO's AP, of the committed run of the grid."""
        of_row = f"{one.table}: {one.system}"
        row = self._recorded.get(_SAME_ROW.get(of_row, of_row))
        places = {(b, m): i for i, (b, m) in enumerate(ablation_cells())}
        place = places.get((benchmark, one.metric))
        if row is None or place is None or row.values[place] is None:
            return None, ""
        return row.values[place], self._committed(f"{GRID_SIZE}; committed run of ablations")

    def _committed(self, what: str) -> str:
        parts = [self._data, f"other model (nano, {what})"]
        return "; ".join(part for part in parts if part)

    def _command(self, one: Published) -> str:
        sample = self._run.params.get("profile") in ("sample", "tiny", "ablations", "sample_full")
        of_row = f"{one.table}: {one.system}"
        if one.benchmark == "inference":
            return "python -m perf.model.bench_cost --full --write"
        if one.benchmark in ("training", "training data"):
            return "hqsam profile paper && dvc repro"
        if one.benchmark in ("SGinW-mean-25", "YTVIS19-val"):
            return "hqsam profile paper_all && dvc repro"
        if _SAME_ROW.get(of_row, of_row) in self._rows:
            if not sample:
                return "hqsam profile paper_ablations && dvc repro"
            return full.COMMAND if one.table in ("2", "15", "16") else "hqsam repro ablations"
        benchmark = _BENCHMARKS.get(one.benchmark, one.benchmark)
        names, model = HQ4 if benchmark == HQ4_MEAN else (benchmark,), self._run.models[0]
        if _NOISE in one.protocol:
            prompts = f"--prompts box_noise_{one.protocol.rpartition(_NOISE)[2]}"
            each = [f"hqsam evaluate --benchmark {n} --model {model} {prompts}" for n in names]
            return " && ".join(each)
        if one.system in _REFINERS:
            refiner = f"--refiner {_REFINERS[one.system]}"
            return " && ".join(f"hqsam refine {name} {model} {refiner}" for name in names)
        return "dvc repro" if one.backbone == "vit_l" else PUBLISHED_MODELS


PUBLISHED_MODELS = "hqsam profile paper_published && dvc repro"


def ablation_cells() -> tuple[tuple[str, str], ...]:
    """Benchmark and metric of the values that the committed grid has, in their order."""
    return ((HQ4_MEAN, "mIoU"), (HQ4_MEAN, "mBIoU"), ("coco", "AP_B"), ("coco", "AP"))


def table_csv(found: Iterable[Cell]) -> str:
    """All numbers as CSV with the columns `COLUMNS`."""
    return csv_text(
        COLUMNS,
        [
            [
                one.table,
                one.system,
                one.backbone,
                one.benchmark,
                one.protocol,
                one.metric,
                f"{one.value:g}",
                number(cell.ours),
                cell.comparable,
                cell.command,
            ]
            for cell in found
            for one in [cell.published]
        ],
    )


def context(found: Sequence[Cell]) -> list[dict[str, Any]]:
    """The tables for the page: systems down, benchmarks, protocols and metrics across."""
    tables = []
    for name in TITLES:
        mine = [cell for cell in found if cell.published.table == name]
        columns = list(dict.fromkeys((c.published.column, c.published.metric) for c in mine))
        groups: list[dict[str, Any]] = []
        for column, _ in columns:
            if groups and groups[-1]["name"] == column:
                groups[-1]["span"] += 1
            else:
                groups.append({"name": column, "span": 1})
        lines = list(dict.fromkeys((c.published.system, c.published.backbone) for c in mine))
        several = len({backbone for _, backbone in lines}) > 1
        run = sum(cell.ours is not None for cell in mine)
        tables.append(
            {
                "number": f"Table {name}" if name.isdigit() else TITLES[name],
                "title": TITLES[name] if name.isdigit() else "",
                "groups": groups,
                "columns": [metric.replace("_", " ") for _, metric in columns],
                "lines": [_line(who, mine, columns, several) for who in lines],
                "count": f"{run} of {len(mine)} numbers run",
            }
        )
    return tables


def _line(
    who: tuple[str, str],
    found: Sequence[Cell],
    columns: Sequence[tuple[str, str]],
    several: bool,
) -> dict[str, Any]:
    mine = {
        (c.published.column, c.published.metric): c
        for c in found
        if (c.published.system, c.published.backbone) == who
    }
    ran = [cell for cell in mine.values() if cell.ours is not None]
    words = list(dict.fromkeys(cell.comparable for cell in ran)) or [NOT_RUN]
    command = next(iter(mine.values())).command
    cells: list[dict[str, str] | None] = []
    for cell in map(mine.get, columns):
        if cell is None:
            cells.append(None)
        elif cell.published.benchmark in _SETUP:
            ours = "" if cell.ours is None else f"{cell.ours:#.3g}".rstrip(".")
            whole = cell.published.value.is_integer() and (cell.ours or 0.0).is_integer()
            ours = number(cell.ours, 0) if whole else ours
            cells.append({"ours": ours, "paper": f"{cell.published.value:g}"})
        else:
            theirs = number(cell.published.value, 1)
            cells.append({"ours": number(cell.ours, 1), "paper": theirs})
    return {
        "name": f"{who[0]}, {who[1]}" if several else who[0],
        "cells": cells,
        "comparable": " / ".join(words),
        "command": command if len(ran) < len(mine) else "",
    }
