"""A system that is one file and one entry goes through predictions, scores, tables, page and comparison; a refiner, too."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from hqsam import systems
from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam.prediction.benchmark import predict
from hqsam.prediction.options import PredictOptions
from hqsam_base.errors import UserError
from hqsam_base.rle import decode
from hqsam_datasets.formats.manifest import read_rows
from hqsam_metrics import exports
from hqsam_metrics.base import score_options
from hqsam_metrics.benchmark import score_benchmark
from hqsam_metrics.benchmark_data import Benchmark, load_predictions
from hqsam_pipelines.compare.answer import headline
from hqsam_pipelines.compare.as_json import to_json
from hqsam_pipelines.compare.comparison import compare
from hqsam_pipelines.compare.page import to_html
from hqsam_pipelines.compare.terminal import show
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.report import scenes, summary
from hqsam_pipelines.report.results import load_run
from hqsam_pipelines.report.run import build_report
from tests import REPOSITORY, toys
from tests.pipelines.report_repo import HEIGHT, WIDTH, Repo, params

SECTION: dict[str, dict[str, Any]] = {
    "sam_hq": {"kind": "sam_hq"},
    "boxes": {"kind": "boxes", "label": "Filled boxes"},
    "cut": {"kind": "refined", "of": "boxes", "refiner": "grabcut"},
}
NANO = ModelOptions(
    backbone="nano", checkpoint=REPOSITORY / "hqsam" / "model" / "backbones" / "nano.safetensors"
)


def quiet(done: int, total: int, what: str) -> None:
    assert done <= total and what


@pytest.fixture(scope="module", autouse=True)
def toy() -> Any:
    with toys.installed(systems, "systems"):
        yield


def with_systems(section: dict[str, Any]) -> Params:
    raw = yaml.safe_load((REPOSITORY / "configs" / "sample.yaml").read_text())
    return Params.of({**raw, "systems": section}, Path("params.yaml"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, toy: None) -> Path:
    """A report's repository whose predictions are real: nano's, the boxes', and the boxes' after a refiner."""
    root = tmp_path_factory.mktemp("systems")
    repo = Repo(root, images=3)
    repo.params = params(("coift", "coco")) | {"systems": SECTION}
    repo.build()
    checkpoint.save_head(
        root / "head" / "hq_head.safetensors", build_model(NANO, seed=0).head, metadata={}
    )
    for name in ("coift", "coco"):
        again(root, name, repo.params)
    (root / "params.yaml").write_text(yaml.safe_dump(repo.params))
    (root / "dvc.yaml").write_text("stages: {}\n")
    build_report(root=root, params=repo.params, out=root / "reports", progress=quiet)
    return root


def again(
    root: Path, name: str, sections: dict[str, Any], section: dict[str, dict[str, Any]] = SECTION
) -> None:
    out = root / "data" / "predictions" / f"{name}-nano"
    shutil.rmtree(out)
    benchmark = root / "data" / "benchmarks" / name
    predict(
        benchmark=benchmark,
        model=NANO,
        head=root / "head",
        options=PredictOptions(threads=1),
        out=out,
        progress=quiet,
        entries=with_systems(section).systems_of("nano"),
    )
    score_benchmark(
        benchmark=benchmark,
        predictions=out,
        options=score_options(sections["benchmarks"][name]["score"]),
        out_json=root / "reports" / "metrics" / f"{name}-nano.json",
        out=root / "data" / "scores" / f"{name}-nano",
        progress=quiet,
    )


def test_its_masks_and_rules_are_among_the_predictions(run: Path) -> None:
    folder = run / "data" / "predictions" / "coift-nano"
    told = json.loads((folder / "predict.json").read_bytes())
    assert told["systems"] == ["sam", "hq_token", "hq_sum", "boxes", "cut"]
    assert told["protocols"]["boxes"] == {"filled": "box, inclusive"}
    assert told["protocols"]["cut"]["refiner"]["name"] == "grabcut" and "unsupported" not in told
    rows = {
        (r["prompt_id"], r["system"]): r
        for p in folder.glob("part-*.parquet")
        for r in read_rows(p)
    }
    prompts = read_rows(run / "data" / "benchmarks" / "coift" / "prompts.parquet")
    assert len(rows) == 5 * len(prompts)
    for prompt in prompts:
        mask = decode(rows[prompt["prompt_id"], "boxes"]["rle"], height=HEIGHT, width=WIDTH)
        ys, xs = np.nonzero(mask)
        assert [xs.min(), ys.min(), xs.max(), ys.max()] == [
            prompt[side] for side in ("x0", "y0", "x1", "y1")
        ]
        assert (
            mask.sum()
            == rows[prompt["prompt_id"], "boxes"]["mask_area"]
            == (np.ptp(xs) + 1) * (np.ptp(ys) + 1)
        )


def test_scores_carry_its_rules(run: Path) -> None:
    found = json.loads((run / "reports" / "metrics" / "coift-nano.json").read_bytes())["results"]
    blocks = {row["system"]: row["protocol"] for row in found}
    assert blocks["boxes"]["filled"] == "box, inclusive" and "filled" not in blocks["sam"]
    assert blocks["cut"]["refined"] == "boxes"


def test_tables_show_it_against_its_baseline(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader((run / "reports" / "tables" / "systems.csv").open()))
    assert {(r["system"], r["label"], r["versus"]) for r in rows} == {
        ("boxes", "Filled boxes", "SAM"),
        ("cut", "boxes + grabcut", "Filled boxes"),
    }
    own = {r["system"]: r for r in rows if (r["benchmark"], r["metric"]) == ("coift", "mIoU")}
    metrics = json.loads((run / "reports" / "metrics.json").read_bytes())["coift"]["gt_box"]
    for system, baseline in (("boxes", "sam"), ("cut", "boxes")):
        values = [100 * metrics[name]["mIoU"] for name in (system, baseline)]
        assert float(own[system]["value"]) == pytest.approx(values[0], abs=1e-3)
        assert float(own[system]["delta"]) == pytest.approx(values[0] - values[1], abs=1e-3)
        assert own[system]["verdict"] == "too few to tell"  # of three images
    ap = next(
        r for r in rows if (r["benchmark"], r["metric"], r["system"]) == ("coco", "AP", "boxes")
    )
    assert ap["value"] and ap["verdict"] == "too few to tell"
    [first, *_] = csv.DictReader((run / "reports" / "tables" / "overview.csv").open())
    assert first["hq_sam"] == first["hq_token"] and float(first["boxes"]) == pytest.approx(
        float(own["boxes"]["value"])
    )
    page = (run / "reports" / "report.html").read_text()
    assert "Other systems of this run" in page and "boxes + grabcut" in page
    summary.show(run)
    assert "Filled boxes" in capsys.readouterr().out
    for title in ("Filled boxes beside SAM", "boxes + grabcut beside Filled boxes"):
        assert f"<h2>{title}</h2>" in page
    assert 'data-panels="[&#34;Prompt&#34;, &#34;Filled boxes&#34;, &#34;boxes + gr' in page
    pictures = [path.name for path in (run / "reports" / "figures").iterdir()]
    for system in ("boxes", "cut"):
        assert {
            name.split("_")[3] for name in pictures if name.startswith(f"system_{system}_")
        } == {
            "coco.png",
            "coift.png",
        }


def test_masks_made_elsewhere_are_pictured_like_any_systems(run: Path, tmp_path: Path) -> None:
    """Those of HQ-SAM as a results file: the same tables, and pictures of the same masks."""
    root = tmp_path / "root"
    shutil.copytree(run, root)
    sections = yaml.safe_load((root / "params.yaml").read_text())
    score = score_options(sections["benchmarks"]["coco"]["score"])
    data = Benchmark(root / "data" / "benchmarks" / "coco")
    folder = root / "data" / "predictions" / "coco-nano"
    mine = load_predictions(data, folder, "detector_box", "hq_sum")
    exports.load("coco").write(mine, score, root / "theirs.json")
    theirs = {"kind": "predictions", "path": str(root / "theirs.json"), "benchmarks": ["coco"]}
    sections["systems"] = {**SECTION, "theirs": theirs}
    again(root, "coco", sections, sections["systems"])
    build_report(root=root, params=sections, out=root / "reports", progress=quiet)
    assert "<h2>theirs beside SAM</h2>" in (root / "reports" / "report.html").read_text()
    assert list((root / "reports" / "figures").glob("system_theirs_*_coco.png"))
    found = load_run(root, sections)
    drawn = []
    for names in (("sam", "theirs"), ("sam", "hq_sum")):
        of = scenes.candidates(found, "nano", "coco", names)
        assert of is not None and len(of) > 1
        reader = scenes.SceneReader(found, scenes.pair_sides(found, names))
        drawn.append([reader.read(of[place]).hq for place in range(len(of))])
    assert all((a == b).all() for a, b in zip(*drawn, strict=True))


def test_compare_shows_it_with_label_and_baseline(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    shutil.copytree(run, root)
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    found = compare(root, "HEAD")
    rows = {(r["benchmark"], r["system"]): r for r in to_json(found)["rows"]}
    assert (rows["coift", "boxes"]["label"], rows["coift", "boxes"]["versus"]) == (
        "Filled boxes",
        "sam",
    )
    assert (rows["coift", "cut"]["label"], rows["coift", "cut"]["versus"]) == (
        "boxes + grabcut",
        "boxes",
    )
    main = {change.system for change in headline(found) if change.benchmark == "coift"}
    assert main == {"hq_token", "boxes", "cut"}, "of HQ-SAM's two outputs the protocol's own"
    console = Console(width=200, record=True, file=(tmp_path / "terminal").open("w"))
    show(found, console, every=True)
    assert "Filled boxes" in console.export_text()
    assert "Filled boxes" in to_html(found)


def test_what_it_cannot_take_is_said(run: Path, tmp_path: Path) -> None:
    from tests.hqsam.test_predict import _write_benchmark

    told = predict(
        benchmark=_write_benchmark(tmp_path / "toy"),
        model=NANO,
        head=run / "head",
        options=PredictOptions(threads=1),
        out=tmp_path / "toy-nano",
        progress=quiet,
        entries=with_systems(SECTION).systems_of("nano"),
    )
    assert told["unsupported"] == {"boxes": ["masks", "points"], "cut": ["masks", "points"]}
    rows = [r for p in (tmp_path / "toy-nano").glob("part-*.parquet") for r in read_rows(p)]
    assert {r["prompt_set"] for r in rows if r["system"] in ("boxes", "cut")} == {
        f"{kind}s" for kind in ("box",)
    }
    assert len(rows) == 20 * 3 + 8 * 2


def test_the_default_is_todays_three_for_every_model() -> None:
    sample = Params.load(REPOSITORY / "configs" / "sample.yaml")
    assert sample.systems == systems.DEFAULT == sample.systems_of("nano")
    found = systems.listed(None)
    assert [(s.name, s.label, s.owner, s.versus) for s in found] == [
        ("sam", "SAM", "SAM", None),
        ("hq_token", "HQ token", "HQ-SAM", "sam"),
        ("hq_sum", "SAM + HQ", "HQ-SAM", "sam"),
    ]
    many = with_systems(SECTION).systems
    assert [e.name for e in systems.applying(many, "b", ("a", "b"))] == ["sam_hq"], (
        "the others once, beside the first model"
    )
    assert len(systems.applying(many, "a", ("a", "b"))) == 3


@pytest.mark.parametrize(
    ("section", "key", "problem"),
    [
        ({"x": {"kind": "nothing"}}, "systems.x.kind", "unknown system kind"),
        ({"x": {}}, "systems.x.kind", "unknown system kind"),
        ({**SECTION, "sam": {"kind": "boxes"}}, "systems.sam", "twice"),
        (
            {
                "theirs": {"kind": "predictions", "path": "theirs.json"},
                "cut": {"kind": "refined", "of": "theirs", "refiner": "grabcut"},
            },
            "systems.cut.of",
            "exist already",
        ),
        ({**SECTION, "x": {"kind": "boxes", "versus": "y"}}, "systems.x.versus", "no system y"),
        (
            {"cut": {**SECTION["cut"]}, "boxes": {"kind": "boxes"}},
            "systems.cut.of",
            "no system boxes before it",
        ),
        (
            {**SECTION, "x": {"kind": "boxes", "models": ["vit"]}},
            "systems.x.models",
            "unknown model",
        ),
        ({**SECTION, "x": {"kind": "boxes", "color": 1}}, "systems.x.color", "unknown key"),
        (
            {"boxes": {"kind": "boxes"}},
            "benchmarks.dis_vd.score.output",
            "unknown system 'hq_token'",
        ),
        ([], "systems", "expected a mapping"),
    ],
)
def test_a_bad_section_is_one_message(section: Any, key: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        with_systems(section).check()
    assert (caught.value.key, caught.value.file) == (key, "params.yaml")
