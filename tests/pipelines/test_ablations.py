"""The paper's ablations: overlays, the profiles that they make, what each row trains, and its line in the report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines import ablations
from hqsam_pipelines.config import profiles
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.config.yaml_file import parse_yaml, read_yaml
from hqsam_pipelines.report import ablations as report_ablations
from hqsam_pipelines.report import full, paper, published
from hqsam_pipelines.report.results import Result, Run
from tests import REPOSITORY

SAMPLE = REPOSITORY / "configs" / "sample.yaml"
ROWS = ablations.rows(REPOSITORY)


def composed(name: str = "ablations") -> Params:
    return Params.of(parse_yaml(ablations.compose(REPOSITORY, name), Path(name)), Path(name))


@pytest.mark.parametrize(("name", "base"), ablations.PROFILES.items())
def test_profiles_are_valid_and_hold_every_row(name: str, base: str) -> None:
    params = composed(name)
    assert params.profile == name
    assert params.check() > 40
    wanted = {
        row.name
        for row in ROWS
        if (not row.profiles or base in row.profiles)
        and (name != "sample_full" or row.paper.partition(":")[0] in ("2", "15", "16"))
    }
    assert wanted == set(params.models[1:])
    assert dict(profiles.listing(REPOSITORY)).keys() >= {name, base}
    assert ablations.compose(REPOSITORY, name) == ablations.compose(REPOSITORY, name)


def test_dvc_reads_the_same_as_we_do(tmp_path: Path) -> None:
    from dvc.utils.serialize import load_yaml

    for name in ablations.PROFILES:
        (tmp_path / "params.yaml").write_bytes(ablations.compose(REPOSITORY, name))
        assert load_yaml(str(tmp_path / "params.yaml")) == read_yaml(tmp_path / "params.yaml")


def test_rows_differ_from_the_base_in_a_few_keys_only() -> None:
    params = composed()
    base = params.raw["models"]["nano"]
    for name in params.models[1:]:
        entry = params.raw["models"][name]
        assert {k for k in entry if entry[k] != base.get(k)} <= {"variant", "train"}, name
        assert {k for k in entry if entry[k] != base.get(k)}, f"{name} is the base"
        changed = entry.get("train", {})
        assert set(changed) <= {"loss_region", "sources", "feed"}, name


def test_the_first_model_and_what_trains_it_are_those_of_the_sample() -> None:
    ours, sample = composed(), Params.load(SAMPLE)
    assert ours.models[0] == "nano"
    assert ours.model("nano") == sample.model("nano")
    plain = {"epochs": 6, "lr_drop_epoch": 5, "sources": tuple(sample.sources)}
    assert ours.train("nano") == sample.train("nano").model_copy(update=plain)


def test_each_row_trains_what_it_says() -> None:
    params = composed()
    base = params.train("nano").model_dump()
    expected: dict[str, dict[str, Any]] = {
        "boundary_loss": {"loss_region": "boundary"},
        "finetune_sam": {"feed": "online"},
        "encoder_adapter": {"feed": "online"},
        "lora_encoder": {"feed": "online"},
        "sa1b": {"sources": ("sa1b",)},
        "no_dis": {"sources": ("thinobject5k", "fss1000", "ecssd", "msra10k", "duts")},
        "no_thinobject": {"sources": ("dis5k", "fss1000", "ecssd", "msra10k", "duts")},
        "no_dis_no_thinobject": {"sources": ("fss1000", "ecssd", "msra10k", "duts")},
    }
    for name in params.models[1:]:
        found = params.train(name).model_dump()
        assert {k: v for k, v in found.items() if v != base[k]} == expected.get(name, {}), name
    assert all(
        params.train(n).feed == "online" for n in params.models if changes_encoder(params, n)
    )


def changes_encoder(params: Params, name: str) -> bool:
    from hqsam.model import variants

    return variants.load(params.model(name).variant).changes_encoder


TRAINED = {
    "nano": {
        "hf_token",
        "hf_mlp",
        "compress_vit_feat",
        "embedding_encoder",
        "embedding_maskfeature",
    },
    "context_tokens": {"context_tokens"},
    "hq_context_tokens": {
        "hf_token",
        "hf_mlp",
        "compress_vit_feat",
        "embedding_encoder",
        "embedding_maskfeature",
        "context_tokens",
    },
    "hq_times_output": {"hf_token", "hf_mlp"},
    "boundary_loss": {"hf_token", "hf_mlp"},
    "hq_mask_feature": {"hf_token", "hf_mlp"},
    "fusion_mask": {"hf_token", "hf_mlp", "embedding_maskfeature"},
    "fusion_final": {"hf_token", "hf_mlp", "embedding_encoder"},
    "fusion_mask_final": {"hf_token", "hf_mlp", "embedding_encoder", "embedding_maskfeature"},
    "fusion_mask_early": {"hf_token", "hf_mlp", "compress_vit_feat", "embedding_maskfeature"},
    "fpn_fusion": {
        "hf_token",
        "hf_mlp",
        "lateral_early",
        "lateral_final",
        "lateral_mask",
        "output",
    },
    "finetune_output_token": {"output_token", "output_mlp"},
    "finetune_decoder": {"mask_decoder"},
    "finetune_sam": {"image_encoder", "prompt_encoder", "mask_decoder"},
    "encoder_adapter": {"layers"},
    "lora_encoder": {"layers"},
}
"""Modules of the head whose parameters train, by row."""


@pytest.mark.parametrize("name", ["nano", *(row.name for row in ROWS)])
def test_trainable_parameters_of_each_row(name: str) -> None:
    from hqsam.model.build import build_model

    params = composed("paper_ablations" if name == "light_hq" else "ablations")
    model = build_model(params.model(name).model_copy(update={"checkpoint": None}), seed=0)
    names = set(model.trainable())
    assert names, "something trains"
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        f"head.{n}" for n in names
    }
    same = {
        "no_dis": "nano",
        "no_thinobject": "nano",
        "no_dis_no_thinobject": "nano",
        "sa1b": "nano",
        "light_hq": "nano",
    }
    assert {n.partition(".")[0] for n in names} == TRAINED[same.get(name, name)]


def test_paper_rows_exist_for_every_row() -> None:
    for row in ROWS:
        table, _, system = row.paper.partition(": ")
        cells = [
            ("dis_vd", "mIoU"),
            (paper.HQ4_MEAN, "mIoU"),
            (paper.HQ4_MEAN, "mBIoU"),
            ("coco", "AP_B"),
        ]
        found = [paper.row_value(table, system, benchmark, metric) for benchmark, metric in cells]
        assert any(value is not None for value in found), row.paper
    assert paper.row_value("4", "Finetune SAM's decoder", "coco", "AP") == 19.5
    assert paper.row_value("2", "SAM", paper.HQ4_MEAN, "mBIoU") == pytest.approx(71.1, abs=0.06)


def result(benchmark: str, model: str, system: str, **metrics: float) -> Result:
    return Result(benchmark, model, "gt_box", system, metrics, 1, 1, {}, "")


def test_the_table_has_one_row_for_each_model(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "ablations").symlink_to(REPOSITORY / "configs" / "ablations")
    (tmp_path / "models" / "fusion_mask").mkdir(parents=True)
    (tmp_path / "models" / "fusion_mask" / "meta.json").write_text(
        json.dumps({"n_parameters": 1234})
    )
    results = [
        result(b, m, s, mIoU=v, mBIoU=v / 2)
        for b in paper.HQ4
        for m, s, v in [
            ("nano", "sam", 0.4),
            ("nano", "hq_token", 0.6),
            ("fusion_mask", "hq_token", 0.5),
        ]
    ]
    run = Run(tmp_path, composed().raw, results)
    found = report_ablations.rows(run)
    assert [row.title for row in found] == [
        "SAM",
        "HQ-SAM",
        "fusion convolution on SAM's mask feature only",
    ]
    assert [row.values[:2] for row in found] == [
        pytest.approx((v, v / 2)) for v in (40.0, 60.0, 50.0)
    ]
    assert found[2].values[2:] == (None, None)
    assert found[2].parameters == 1234
    assert found[2].published[:2] == (87.8, 80.1)
    csv = report_ablations.table_csv(found).splitlines()
    assert len(csv) == 4
    assert csv[3].startswith("fusion_mask,fusion convolution on SAM's mask feature only,3: ")
    assert ",fusion_mask,1234,50.00,25.00,,,87.8" in csv[3]
    assert (
        "| fusion convolution on SAM's mask feature only | 1,234 | 50.0 |"
        in report_ablations.markdown(found)
    )
    only = Run(tmp_path, read_yaml(SAMPLE), [r for r in results if r.model == "nano"])  # type: ignore[arg-type]
    assert report_ablations.rows(only) == []
    assert report_ablations.context([], "tiny") == []


def test_the_samples_page_shows_the_committed_run_of_the_grid() -> None:
    rows = report_ablations.recorded("sample")
    overlays = {row.name for row in ablations.rows(REPOSITORY)}
    light = {"light_hq"}  # needs weights that the sample does not have
    assert {row.model for row in rows} == (overlays - light) | {"nano"}
    assert all(value is not None and 0 <= value <= 100 for row in rows for value in row.values)
    assert report_ablations.markdown(rows) in (REPOSITORY / "docs" / "ablations.md").read_text(
        encoding="utf-8"
    )
    table = report_ablations.context([], "sample")[0]
    assert table["recorded"] == "hqsam repro ablations"
    assert (
        sum(group["span"] for group in table["groups"])
        == len(table["columns"])
        == len(table["lines"][0])
    )
    assert len(table["lines"]) == len(rows)
    file = REPOSITORY / "pipelines" / "hqsam_pipelines" / "report" / "data" / "ablations_sample.csv"
    assert report_ablations.table_csv(rows) == file.read_text(encoding="utf-8")


def test_the_samples_page_shows_the_committed_run_of_every_prompt_set() -> None:
    found = full.recorded("sample")
    params = composed("sample_full")
    assert {one.model for one in found} <= set(params.models)
    sets = set(params.index("coift").prompt_sets)
    assert {(n.benchmark, n.prompt_set) for n in found if n.model == "nano"} == {
        (benchmark, name) for benchmark in paper.HQ4 for name in sets
    }
    assert all(0 <= one.value <= 100 for one in found if one.metric in ("mIoU", "mBIoU"))
    text = (REPOSITORY / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert full.markdown(found, REPOSITORY) in text
    file = REPOSITORY / "pipelines" / "hqsam_pipelines" / "report" / "data" / "full_sample.csv"
    assert full.table_csv(found) == file.read_text(encoding="utf-8")
    some = [result("coift", "nano", system, mIoU=0.5) for system in ("sam", "hq_token", "hq_sum")]
    run = Run(REPOSITORY, read_yaml(SAMPLE), some)  # type: ignore[arg-type]
    [table] = full.context(run, [])
    assert table["recorded"] == full.COMMAND and len(table["lines"]) == len(sets - {"clicks_5"})
    assert len(table["columns"]) == sum(group["span"] for group in table["groups"]) == 7
    # What the paper has set by set is beside it, from the run that has these sets.
    cells = published.cells(run)
    [cell] = [
        c
        for c in cells
        if (c.published.table, c.published.system) == ("2", "SAM + Context Token")
        and (c.published.benchmark, c.published.metric) == ("COIFT", "mBIoU")
    ]
    own = ("context_tokens", "coift", "gt_box", "hq_token", "mBIoU")
    [wanted] = [n.value for n in found if dataclasses.astuple(n)[:-1] == own]
    assert cell.ours == wanted and "committed run of sample_full" in cell.comparable


def test_a_file_that_is_no_row_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "ablations"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text("title: a\npaper: '2: SAM'\nmodels: {y: {}}\n")
    with pytest.raises(UserError, match="one entry of models with the file's name") as caught:
        ablations.rows(tmp_path)
    assert caught.value.file is not None
    assert caught.value.file.endswith("x.yaml")


def test_null_takes_away() -> None:
    assert ablations.merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None, "e": 4}, "d": 5}) == {
        "a": {"c": 2, "e": 4},
        "d": 5,
    }
