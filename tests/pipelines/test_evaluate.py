"""`hqsam evaluate`: models and predictions beside HQ-SAM in one table; what does not fit is one message before any work."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from hqsam.model import checkpoint, convert
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam_metrics import exports
from hqsam_metrics.base import score_options
from hqsam_metrics.benchmark_data import Benchmark, load_predictions
from hqsam_pipelines import cli
from tests import REPOSITORY
from tests.hqsam import hub_models
from tests.pipelines.report_repo import Repo, params

NANO = REPOSITORY / "hqsam" / "model" / "backbones" / "nano.safetensors"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout on the sample's profile with two small benchmarks, a head, and no training data."""
    root = tmp_path_factory.mktemp("evaluate")
    repo = Repo(root, images=10)
    repo.params = params(("coift", "coco"))
    for name in repo.params["benchmarks"]:
        repo.benchmark(name)
    shutil.copy(REPOSITORY / "configs" / "sample.yaml", root / "params.yaml")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "hqsam").symlink_to(REPOSITORY / "hqsam")
    head = root / "models" / "nano" / "hq_head.safetensors"
    head.parent.mkdir(parents=True)
    options = ModelOptions(backbone="nano", checkpoint=NANO)
    checkpoint.save_head(head, build_model(options, seed=0).head, metadata={})
    score = score_options(repo.params["benchmarks"]["coco"]["score"])
    data = Benchmark(root / "data" / "benchmarks" / "coco")
    theirs = load_predictions(
        data, root / "data" / "predictions" / "coco-nano", "detector_box", "hq_sum"
    )
    exports.load("coco").write(theirs, score, root / "theirs.json")
    hub_models.build("sam2", root / "tiny_sam2")
    hub_models.build("sam3_tracker", root / "tiny_sam3")
    return root


def run(root: Path, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.chdir(root)
    return cli.run(["evaluate", *map(str, words)])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_other_models_and_a_results_file_beside_hq_sam(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if ".hqsam" not in p.parts}
    words = ["--benchmark", "coco", "--model", "nano", "--model", "tiny_sam2"]
    words += ["--model", "other=tiny_sam3", "--predictions", "theirs.json"]
    assert run(root, monkeypatch, *words) == 0
    out = root / "evaluations" / "coco"
    found = rows(out / "reports" / "tables" / "coco-nano.csv")
    labels = ["SAM", "HQ token", "SAM + HQ", "tiny_sam2", "other", "theirs"]
    assert [r["system"] for r in found] == labels * 2
    printed = capsys.readouterr().out
    for row in found:
        assert row["system"] in printed and row["n_scored"] == row["n_expected"] != "0"
        assert (row["versus"] == "SAM") == (row["system"] != "SAM")
        assert bool(row["versus"]) == bool(row["ci_low"] or row["note"])
    assert any(row["ci_low"] for row in found), "no interval at all"
    metrics = json.loads((out / "reports" / "metrics" / "coco-nano.json").read_bytes())["results"]
    blocks = {r["system"]: r["protocol"] for r in metrics}
    assert blocks["tiny_sam2"]["resize"] == "stretch" and blocks["sam"]["resize"] == "longest_side"
    assert blocks["other"]["model_type"] == "sam3_tracker" and "sha256" in blocks["theirs"]
    # What was read there is what the pipeline's own file of it scores.
    stored = json.loads((root / "reports" / "metrics" / "coco-nano.json").read_bytes())["results"]
    [want] = [r["metrics"] for r in stored if r["system"] == "hq_sum"]
    [given] = [r["metrics"] for r in metrics if r["system"] == "theirs"]
    assert given["AP"] == pytest.approx(want["AP"], abs=1e-9)
    for name in ("data/scores/coco-nano/instances.parquet", "data/predictions/coco-nano"):
        assert (out / name).exists()
    assert not (out / "data" / "benchmarks").exists(), "the repository's was there"
    now = {p: p.stat().st_mtime_ns for p in before if p != root}
    assert now == {p: t for p, t in before.items() if p != root}


def test_without_a_model_of_params_yaml_the_first_system_is_the_baseline(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint without an HQ part is SAM; a model that cannot be opened hides no other."""
    lost = shutil.copytree(root / "tiny_sam2", root / "lost") / "model.safetensors"
    weights = load_file(lost)
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, lost, {"format": "pt"})
    words: list[object] = ["--benchmark", "coift", "--model", f"plain={NANO}", "--model"]
    words += ["tiny_sam2", "--model", "lost", "--out", root / "mine"]
    assert run(root, monkeypatch, *words) == 0
    found = rows(root / "mine" / "reports" / "tables" / "coift-systems.csv")
    assert [(r["metric"], r["system"], r["versus"]) for r in found] == [
        ("mIoU", "plain", ""),
        ("mIoU", "tiny_sam2", "plain"),
        ("mBIoU", "plain", ""),
        ("mBIoU", "tiny_sam2", "plain"),
        ("", "lost", ""),
    ]
    assert "not opened: 1 weights" in found[-1]["note"]


def test_a_benchmark_that_was_never_fetched_needs_its_own_archive_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that a system cannot take are said in the table."""
    words = ["--benchmark", "big", "--model", "tiny_sam2", "--out", "new"]
    assert run(root, monkeypatch, *words, "--prompts", "clicks_2", "--prompts", "gt_box") == 0
    assert [p.name for p in (root / "data" / "archives").iterdir()] == ["big"]
    assert not (root / "data" / "samples").exists()
    found = rows(root / "new" / "reports" / "tables" / "big-systems.csv")
    assert {r["prompt_set"] for r in found} == {"clicks_2", "gt_box"}


def test_a_model_that_trains_nothing_needs_neither_training_data_nor_a_stage(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoint is an archive of params.yaml, and the benchmark has been indexed: nothing else is read."""
    words = ["--benchmark", "coift", "--prompts", "gt_box", "--out"]
    assert run(root, monkeypatch, *words, "trained", "--model", "nano") == 0
    net = build_model(ModelOptions(backbone="nano", checkpoint=NANO), seed=0)
    drop = root / "data" / "drop" / "published" / "sam_hq_nano.pth"
    drop.parent.mkdir(parents=True)
    convert.write(net, drop, "hq_sam")
    text = (root / "params.yaml").read_text()
    raw = yaml.safe_load(text)
    raw["sources"], raw["train"]["epochs"] = {}, 0
    raw["archives"]["published"] = {"files": [{"name": drop.name, "urls": [f"drop://{drop.name}"]}]}
    published = {"checkpoint": f"data/archives/published/{drop.name}"}
    raw["models"] = {
        "given": {"backbone": "nano", "variant": "hq", **published},
        "plain": raw["models"]["nano"],
    }
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    try:
        assert run(root, monkeypatch, *words, "published", "--model", "given") == 0
        assert run(root, monkeypatch, *words, "published", "--model", "plain") == 1
    finally:
        (root / "params.yaml").write_text(text)
    assert "it has none for the variant hq" in capsys.readouterr().err
    tables = ("trained/reports/tables/coift-nano.csv", "published/reports/tables/coift-given.csv")
    trained, own = (rows(root / table) for table in tables)
    assert own == trained and len(own) == 6
    for made in ("data/samples", "data/shards", "models/given"):
        assert not (root / made).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "none"], ["--model", "none: no model of params.yaml"]),
        (["--model", "a/b"], ["a/b@COMMIT"]),
        (["--model", "tiny_sam2", "--model", "tiny_sam2"], ["two systems are called tiny_sam2"]),
        (["--model", "nano", "--model", "sam=tiny_sam2"], ["two systems are called sam"]),
        (["--predictions", "none.json"], ["none.json", "no such predictions"]),
        ([], ["nothing to evaluate"]),
        (["--model", "nano", "--prompts", "scribbles"], ["prompt_sets", "scribbles"]),
        (["--model", "tiny_sam2", "--prompts", "tracker_box"], ["tracker_box", "cure"]),
        (["--model", "bert"], ["bert", "sam2_video", "config.json", "systems.bert.model"]),
        (["--model", "sam2.1_hiera_tiny.pt"], ["sam2 is not installed", "pip install sam2"]),
        (["--predictions", "strange.json"], ["strange.json", "987654"]),
    ],
    ids=lambda value: " ".join(value)[:40] or "nothing",
)
def test_what_cannot_be_evaluated(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: list[str],
) -> None:
    (root / "sam2.1_hiera_tiny.pt").write_bytes(b"")
    (root / "bert").mkdir(exist_ok=True)
    (root / "bert" / "config.json").write_text('{"model_type": "bert"}')
    records: list[dict[str, Any]] = json.loads((root / "theirs.json").read_bytes())
    (root / "strange.json").write_text(json.dumps([{**records[0], "image_id": 987654}]))
    out = root / "refused"
    assert run(root, monkeypatch, "--benchmark", "coco", *words, "--out", out) == 1
    told = capsys.readouterr().err
    assert told.count("Error:") == 1
    for text in said:
        assert text in told
    assert not list(out.rglob("predict.json"))
