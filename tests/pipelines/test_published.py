"""Every number of the paper has its place beside ours."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from hqsam_pipelines import ablations
from hqsam_pipelines.report import paper, published
from hqsam_pipelines.report.results import Result, Run
from tests import REPOSITORY

_SETS = {
    "coco": ("coco", ["detector_box"]),
    "lvis": ("lvis", ["detector_box"]),
    "uvo": ("coco", ["detector_box"]),
    "sginw": ("sginw", ["detector_box"]),
    "hq_ytvis": ("ytvis", ["tracker_box"]),
    "ytvis19": ("ytvis", ["tracker_box"]),
    "davis": ("davis", ["tracker_box"]),
    "big": ("masks", ["gt_box", "coarse_mask"]),
    **dict.fromkeys(paper.HQ4, ("masks", ["gt_box", "box_noise_0.2", "box_noise_0.4"])),
}
_METRICS = {
    "masks": ("mIoU", "mBIoU"),
    "davis": ("J&F", "J", "F"),
    **{
        key: [
            *(f"AP{size}" for size in ("", "50", "75", "s", "m", "l")),
            *(f"AP_B{step}" for step in ("", "50", "75", "_strict", "_strict50", "_strict75")),
        ]
        for key in ("coco", "lvis", "ytvis", "sginw")
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of every model, system, benchmark and prompt set that the paper has a number of."""
    shutil.copytree(REPOSITORY / ablations.FOLDER, tmp_path / ablations.FOLDER)
    rows = {row.name: row.changes["models"][row.name] for row in ablations.rows(tmp_path)}
    models = {name: {"backbone": name} for name in ("vit_l", "vit_b", "vit_h", "vit_tiny")}
    models |= {name: {"backbone": own.get("backbone", "vit_l")} for name, own in rows.items()}
    for name in models:
        (tmp_path / "models" / name).mkdir(parents=True)
        options = {"processes": 8, "batch_size": 4}
        meta = {"n_parameters": 1 << 18, "steps": 16600, "options": options}
        (tmp_path / "models" / name / "meta.json").write_text(json.dumps(meta))
    sources = ("dis5k", "thinobject5k", "fss1000", "duts", "ecssd", "msra10k")
    for name in sources:
        folder = tmp_path / "data" / "samples" / name
        folder.mkdir(parents=True)
        (folder / "normalise.json").write_text(json.dumps({"n_samples": 7}))
    refined = {
        name: {"kind": "refined", "of": "sam", "refiner": name} for name in ("cascadepsp", "crm")
    }
    params = {
        "profile": "paper",
        "models": models,
        "sources": {key: {} for key in sources},
        "systems": {"sam_hq": {"kind": "sam_hq"}} | refined,
        "benchmarks": {
            name: {
                "index": {"prompt_sets": sets},
                "score": {"output": "hq_token" if metric == "masks" else "hq_sum"},
            }
            for name, (metric, sets) in _SETS.items()
        },
    }
    results = [
        Result(
            benchmark,
            model,
            prompt_set,
            system,
            dict.fromkeys(_METRICS[metric], 0.25 if system == "sam" else 0.5),
            4,
            4,
            {"evaluator": f"hqsam_metrics.{metric}", "dilation_ratio": 0.02},
            "0" * 16,
        )
        for benchmark, (metric, sets) in _SETS.items()
        for model in models
        for prompt_set in sets
        for system in ("sam", "hq_token", "hq_sum", *refined)
    ]
    return Run(tmp_path, params, results)


def test_every_number_has_its_place(run: Run) -> None:
    found = published.cells(run)
    assert len(found) == 388
    # Hours differ from run to run: they stand in provenance.json.
    assert [c.published.metric for c in found if c.ours is None] == ["hours"]
    assert {c.comparable for c in found if c.published.benchmark == "COCO"} == {"same"}
    values = {
        (c.published.table, c.published.system, c.published.protocol, c.published.metric): c.ours
        for c in found
    }
    assert values["4", "CascadePSP post-refinement", "gt_box", "mIoU"] == 50
    assert values["13", "SAM", "gt_box, noise scale 0.2", "mIoU"] == 25
    assert values["14", "HQSeg-44K", "-", "images"] == 42
    assert values["9", "SAM + LoRA", "FocalNet-DINO boxes", "trainable_MiB"] == 1
    assert [len(table["lines"]) for table in published.context(found)][1] == 7  # Table 2


def test_what_did_not_run_says_so_with_the_command(run: Run) -> None:
    params = dict(run.params) | {
        "profile": "sample",
        "models": {"nano": {"backbone": "nano"}},
        "archives": {"dis5k": {"files": [{"urls": ["embedded://dis5k/DIS5K.zip"]}]}},
    }
    few = [
        Result("coift", "nano", "gt_box", system, {"mIoU": 0.5}, 4, 4, rules, "0" * 16)
        for system in ("sam", "hq_token")
        for rules in [
            {
                "evaluator": "hqsam_metrics.masks",
                "dilation_ratio": 0.01,
                "detector": {"digest": "1"},
            }
        ]
    ]
    rows = list(
        csv.DictReader(
            io.StringIO(published.table_csv(published.cells(Run(run.root, params, few))))
        )
    )
    assert len(rows) == 388 and all(row["command"] for row in rows)
    assert {bool(row["ours"]) == (row["comparable"] != "not run") for row in rows} == {True}
    mine = [r for r in rows if (r["table"], r["system"], r["benchmark"]) == ("2", "SAM", "COIFT")]
    assert [(r["metric"], r["ours"]) for r in mine] == [("mIoU", "50.00"), ("mBIoU", "")]
    differs = "other data (sample); other model (nano); other protocol (detector, dilation_ratio)"
    assert mine[0]["comparable"] == differs
    # The committed run of the grid fills the means over the four sets.
    lora = [r for r in rows if r["system"] == "SAM + LoRA" and r["metric"] == "AP"]
    assert lora[0]["ours"] and "committed run" in lora[0]["comparable"]
    assert {
        r["command"] for r in rows if r["backbone"] == "vit_h" and r["benchmark"] == "COCO"
    } == {published.PUBLISHED_MODELS}


def test_studies_of_a_benchmark_are_no_headlines() -> None:
    sets = ["gt_box", "box_noise_0.2", "points_1", "coarse_mask"]
    assert paper.main_prompts(sets) == ["gt_box", "coarse_mask"]
    assert paper.main_prompts(["points_1", "clicks"]) == ["points_1", "clicks"]
