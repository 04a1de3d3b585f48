"""The table of ablations: one row per model of the profile, beside the paper's numbers for the same system.

Files are only written when the profile has rows of `configs/ablations`. Values are means over the
four HQ sets (where all were run) and COCO's, times 100, for the system that HQ-SAM is in each
benchmark's protocol. The grid takes several times as long as the sample itself, so the sample's
page shows a committed run of it (``data/ablations_sample.csv``, a copy of that run's
`reports/tables/ablations.csv`) and says so.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hqsam_pipelines import ablations
from hqsam_pipelines.report import comparable, paper
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.tables import csv_text, number

COLUMNS = (
    "model",
    "title",
    "paper_row",
    "variant",
    "trained_parameters",
    "mIoU",
    "mBIoU",
    "coco_AP_B",
    "coco_AP",
    "paper_mIoU",
    "paper_mBIoU",
    "paper_coco_AP_B",
    "paper_coco_AP",
    "comparable",
)

_CELLS = ((paper.HQ4_MEAN, "mIoU"), (paper.HQ4_MEAN, "mBIoU"), ("coco", "AP_B"), ("coco", "AP"))

SIZE = "half the epochs"


@dataclass(frozen=True)
class AblationRow:
    """One system of the table.

    Attributes:
        model: its entry of `models`.
        title: what it is.
        paper_row: `table: system` of the paper.
        variant: what trains.
        parameters: how many numbers train; None: unknown.
        values: HQ4 mIoU and mBIoU, COCO AP_B and AP; None where it was not scored.
        published: the paper's numbers for these.
        comparable: how far ours are comparable with the paper's (`comparable`).
    """

    model: str
    title: str
    paper_row: str
    variant: str
    parameters: int | None
    values: tuple[float | None, ...]
    published: tuple[float | None, ...]
    comparable: str


def rows(run: Run) -> list[AblationRow]:
    """SAM, HQ-SAM and the rows of `configs/ablations` that the profile holds; none if it holds no such row."""
    overlays = (
        {row.name: row for row in ablations.rows(run.root)}
        if (run.root / ablations.FOLDER).is_dir()
        else {}
    )
    if not any(model in overlays for model in run.models):
        return []
    base = run.models[0]
    sam, words = _values(run, base, vanilla=True), _comparable(run, base)
    found = [AblationRow(base, "SAM", "4: SAM", "", 0, sam, _published("4: SAM"), words)]
    for model in run.models:
        overlay = overlays.get(model)
        title, source = (overlay.title, overlay.paper) if overlay else ("HQ-SAM", "4: HQ-SAM")
        variant = str(run.params.get("models", {}).get(model, {}).get("variant", "hq"))
        meta = run.root / "models" / model / "meta.json"
        parameters = int(json.loads(meta.read_bytes())["n_parameters"]) if meta.is_file() else None
        found.append(
            AblationRow(
                model,
                title,
                source,
                variant,
                parameters,
                _values(run, model),
                _published(source),
                _comparable(run, model),
            )
        )
    return found


def _comparable(run: Run, model: str) -> str:
    names = dict.fromkeys((*paper.HQ4, "coco"))
    results = [r for r in run.results if r.model == model and r.benchmark in names]
    mine = [r for r in results if r.system == run.hq_system(r.benchmark)]
    backbone = paper.reference_backbone(run.backbone(model))
    return comparable.words(run, model, backbone, mine)


def _values(run: Run, model: str, *, vanilla: bool = False) -> tuple[float | None, ...]:
    """The numbers of a row as shown; the mean of the four HQ sets only where all four have it."""
    values = []
    for benchmark, metric in _CELLS:
        names = paper.HQ4 if benchmark == paper.HQ4_MEAN else (benchmark,)
        found = []
        for name in (name for name in names if run.prompt_sets(name, model)):
            system = run.baseline(name) if vanilla else run.hq_system(name)
            result = run.find(name, model, run.prompt_sets(name, model)[0], system)
            if result is not None and metric in result.metrics:
                found.append(result.metrics[metric] * result.score.value(metric).scale.factor)
        values.append(sum(found) / len(found) if len(found) == len(names) else None)
    return tuple(values)


def _published(row: str) -> tuple[float | None, ...]:
    table, _, system = row.partition(": ")
    return tuple(paper.row_value(table, system, benchmark, metric) for benchmark, metric in _CELLS)


def table_csv(found: Sequence[AblationRow]) -> str:
    """The table with the columns `COLUMNS`."""
    lines = [
        [
            row.model,
            row.title,
            row.paper_row,
            row.variant,
            "" if row.parameters is None else str(row.parameters),
            *(number(v) for v in row.values),
            *(number(v, 1) for v in row.published),
            row.comparable,
        ]
        for row in found
    ]
    return csv_text(COLUMNS, lines)


HEADS = (
    "System",
    "Trained parameters",
    "mIoU",
    "mBIoU",
    "COCO AP_B",
    "COCO AP",
    "paper: mIoU",
    "mBIoU",
    "COCO AP_B",
    "COCO AP",
)


def shown(found: Sequence[AblationRow]) -> list[list[str]]:
    """The cells of the table that a person reads, columns `HEADS`."""
    return [
        [
            row.title,
            "" if row.parameters is None else f"{row.parameters:,}",
            *(number(v, 1) for v in row.values),
            *(number(v, 1) for v in row.published),
        ]
        for row in found
    ]


def context(found: Sequence[AblationRow], profile: str) -> list[dict[str, Any]]:
    """The table for the page: of this run, or the committed one of the profile; nothing if there is neither."""
    table = {
        "title": "Ablations and rivals: means over the four HQ sets, and COCO",
        "groups": [
            {"name": "", "span": 2},
            {"name": "ours", "span": 4},
            {"name": "paper's", "span": 4},
        ],
        "columns": [name.removeprefix("paper: ") for name in HEADS],
    }
    if found:
        return [{**table, "lines": shown(found)}]
    earlier = recorded(profile)
    return (
        [{**table, "lines": shown(earlier), "recorded": "hqsam repro ablations", "size": SIZE}]
        if earlier
        else []
    )


def recorded(profile: str) -> list[AblationRow]:
    """The committed run of the grid on a profile's data; none for a profile without one."""
    file = resources.files("hqsam_pipelines.report").joinpath(f"data/ablations_{profile}.csv")
    if not file.is_file():
        return []
    lines = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))

    def values(line: dict[str, str], names: Sequence[str]) -> tuple[float | None, ...]:
        return tuple(float(line[name]) if line[name] else None for name in names)

    return [
        AblationRow(
            line["model"],
            line["title"],
            line["paper_row"],
            line["variant"],
            int(line["trained_parameters"]) if line["trained_parameters"] else None,
            values(line, COLUMNS[5:9]),
            values(line, COLUMNS[9:13]),
            line["comparable"],
        )
        for line in lines
    ]


def markdown(found: Sequence[AblationRow]) -> str:
    """The table for a terminal or a README."""
    lines = [HEADS, ["---", *["--:"] * (len(HEADS) - 1)], *shown(found)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
