"""The quality gate holds on sound data and names expectation, data set and keys for every kind of damage."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from hqsam_base.atomic import read_json, write_json
from hqsam_base.errors import UserError
from hqsam_datasets.formats import manifest
from hqsam_datasets.quality.gate import validate
from hqsam_datasets.quality.options import QualityOptions
from perf.data.overlap_folders import Picture, quiet, write_benchmark, write_source

Folders = tuple[dict[str, Path], dict[str, Path]]


def pictures(prefix: str, n: int) -> list[Picture]:
    rng = np.random.default_rng(sum(prefix.encode()))
    mask = np.zeros((40, 60), np.bool_)
    mask[10:30, 15:40] = True
    return [
        Picture(f"{prefix}_{i:02d}", rng.integers(0, 256, (40, 60, 3), np.uint8), mask)
        for i in range(n)
    ]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    samples = {
        name: write_source(tmp_path / "s" / name, name, pictures(name, 6))
        for name in ("alpha", "beta")
    }
    return samples, {
        "gamma": write_benchmark(tmp_path / "b" / "gamma", "gamma", pictures("gamma", 5))
    }


def run(folders: Folders, out: Path, **options: Any) -> dict[str, Any]:
    return validate(
        samples=folders[0],
        benchmarks=folders[1],
        out=out,
        options=QualityOptions(**options),
        progress=quiet,
    )


def edit(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of a table, types and all (a null may go where none is allowed)."""
    table = manifest.read_table(path)
    rows = table.to_pylist()
    change(rows)
    loose = pa.schema([pa.field(f.name, f.type) for f in table.schema])
    manifest.write_table(path, pa.Table.from_pylist(rows, schema=loose), sort_by=())


def failures(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    results = read_json(out.with_name(f"{out.name}-failed") / "results.json")["results"]
    return {(row["table"], row["column"]): row for row in results if not row["success"]}


def test_sound_data_pass_with_the_same_bytes(folders: Folders, tmp_path: Path) -> None:
    summary = run(folders, tmp_path / "out")
    assert summary["success"]
    assert (
        summary["n_samples"],
        summary["n_images"],
        summary["n_instances"],
        summary["n_prompts"],
    ) == (12, 5, 5, 5)
    assert summary == read_json(tmp_path / "out" / "validation.json")
    assert (
        summary["n_expectations"]
        == len(read_json(tmp_path / "out" / "results.json")["results"])
        > 60
    )
    run(folders, tmp_path / "again")
    for name in ("results.json", "data_docs.html", "validation.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    page = (tmp_path / "out" / "data_docs.html").read_text()
    assert all(name in page for name in ("alpha", "beta", "gamma", "All expectations hold"))
    assert not re.search(r"(src|href)=|https?://|<script|<link", page)


def test_every_damage_to_training_tables_is_named(folders: Folders, tmp_path: Path) -> None:
    def damage(rows: list[dict[str, Any]]) -> None:
        rows[0]["fg_fraction"] = 0.9999
        rows[1]["fg_fraction"] = None
        rows[2]["key"] = "alpha_03"
        rows[4]["mask_encoding"] = "sepia"
        rows[4]["soft_fraction"] = 0.9
        rows[5]["key"] = "other.key"
        rows[5]["height"] = 8
        rows[5]["pdq"] = b"short"
        rows[5]["tiles"] = b"??"
        rows[5]["pixel_digest"] = "xyz"
        rows[5]["shard"] = "samples-00099.tar"
        rows[5]["exif_orientation"] = 9
        rows[5]["n_instances"] = 0
        rows[5]["source"] = "nowhere"
        rows[5]["image_mode"] = "HSV"

    edit(folders[0]["alpha"] / "manifest.parquet", damage)
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        run(folders, out)
    assert "quality expectations fail" in str(caught.value)
    assert "alpha" in str(caught.value)
    assert "cure" in str(caught.value)
    assert not out.exists()
    found = failures(out)
    hopeless = (
        "short_side",
        "pdq_bytes",
        "tiles_ok",
        "pixel_digest",
        "shard_exists",
        "exif_orientation",
        "n_instances",
        "source",
        "image_mode",
        "key_has_prefix",
    )
    expected = {"fg_fraction": {"alpha_00"}, "key": {"alpha_03"}, "mask_encoding": {"alpha_04"}}
    expected |= {"soft_fraction": {"alpha_04"}} | {column: {"other.key"} for column in hopeless}
    assert {column for table, column in found if table == "samples"} == set(expected)
    results = read_json(tmp_path / "out-failed" / "results.json")["results"]
    for column, keys in expected.items():
        rows = [
            row
            for row in results
            if row["column"] == column and row["table"] == "samples" and not row["success"]
        ]
        assert keys <= {key for row in rows for key in row["keys"]}, column
        assert {name for row in rows for name in row["sets"]} == {"alpha"}
    nulls = [row for row in results if row["title"] == "column fg_fraction has no nulls"]
    assert nulls[0]["keys"] == ["alpha_01"]
    assert "What fails" in (tmp_path / "out-failed" / "data_docs.html").read_text()


def test_every_damage_to_evaluation_tables_is_named(folders: Folders, tmp_path: Path) -> None:
    folder = folders[1]["gamma"]

    def prompts(rows: list[dict[str, Any]]) -> None:
        rows[0]["x1"] = 62.5
        rows[1]["x0"], rows[1]["x1"] = rows[1]["x1"], rows[1]["x0"]
        rows[2]["key"] = "gamma_99"
        rows[3]["instance_id"] = "nobody"
        rows[4]["prompt_id"] = rows[3]["prompt_id"]
        rows[4]["x0"] = None

    def instances(rows: list[dict[str, Any]]) -> None:
        rows[0]["height"] = 41
        rows[1]["area"] = -1.0
        rows[2]["key"] = "gamma_98"

    def images(rows: list[dict[str, Any]]) -> None:
        rows[3]["image_id"] = rows[2]["image_id"]

    for name, change in (("prompts", prompts), ("instances", instances), ("images", images)):
        edit(folder / f"{name}.parquet", change)
    declared = read_json(folder / "index.json")
    write_json(folder / "index.json", {**declared, "n_images": 7, "n_prompts": {"gt_box": 4}})
    with pytest.raises(UserError, match="gamma"):
        run(folders, tmp_path / "out")
    found = failures(tmp_path / "out")
    keys = {column: row["keys"] for (_, column), row in found.items()}
    assert keys == {
        "n_boxes_outside": ["gamma_00"],
        "n_boxes_empty": ["gamma_01"],
        "n_sizes_wrong": ["gamma_00"],
        "n_areas_negative": ["gamma_01"],
        "n_orphan_prompts": ["gamma_02_0"],
        "n_orphan_instances": ["gamma_02_0"],
        "n_unknown_instances": ["nobody"],
        "n_duplicate_ids": ["gamma_03_0"],
        "n_prompts_without_content": ["gamma_03_0"],
        "n_duplicate_image_ids": ["gamma_02", "gamma_03"],
        "n_rows": [],
        "n_prompts": [],
    }


def test_keys_must_be_unique_across_sets(folders: Folders, tmp_path: Path) -> None:
    edit(folders[0]["beta"] / "manifest.parquet", lambda rows: rows[0].update(key="alpha_01"))
    with pytest.raises(UserError, match="alpha_01"):
        run(folders, tmp_path / "out")
    assert failures(tmp_path / "out")["samples", "key"]["sets"] == ["alpha", "beta"]


def test_counts_must_be_the_declared_and_expected_ones(folders: Folders, tmp_path: Path) -> None:
    path = folders[0]["beta"] / "normalise.json"
    declared = read_json(path)
    write_json(path, {**declared, "n_expected": 9})
    with pytest.raises(UserError, match="the number of images is the expected one fails in beta"):
        run(folders, tmp_path / "out")
    write_json(path, {**declared, "n_rejects": 3, "rejects_by_reason": {"empty_mask": 3}})
    with pytest.raises(
        UserError, match="few pairs were rejected beyond the known bad ones fails in beta"
    ):
        run(folders, tmp_path / "out")
    write_json(path, {**declared, "n_rejects": 3, "rejects_by_reason": {"known_bad": 3}})
    assert run(folders, tmp_path / "out")["success"]


@pytest.mark.parametrize(
    ("reason", "fails"), [("crowd", False), ("no_object", False), ("invalid_annotation", True)]
)
def test_what_an_annotation_file_leaves_out_is_no_damage(
    reason: str, fails: bool, folders: Folders, tmp_path: Path
) -> None:
    path = folders[0]["beta"] / "normalise.json"
    write_json(path, {**read_json(path), "n_rejects": 20, "rejects_by_reason": {reason: 20}})
    if fails:
        with pytest.raises(UserError, match="few pairs were rejected"):
            run(folders, tmp_path / "out")
    else:
        assert run(folders, tmp_path / "out")["success"]


def test_doctor_warns_at_the_limits_of_the_gate() -> None:
    from hqsam_datasets.diagnose import pixels

    defaults = QualityOptions()
    assert defaults.fg_fraction == (pixels._TINY_SHARE, pixels._FULL_SHARE)
    assert defaults.min_side == pixels._MIN_SIDE


def test_a_failure_leaves_the_last_result_alone(folders: Folders, tmp_path: Path) -> None:
    before = run(folders, tmp_path / "out")
    with pytest.raises(UserError, match="large enough"):
        run(folders, tmp_path / "out", min_side=50)
    assert read_json(tmp_path / "out" / "validation.json") == before


def test_a_missing_table_or_column_is_named(folders: Folders, tmp_path: Path) -> None:
    path = folders[1]["gamma"] / "images.parquet"
    manifest.write_table(path, manifest.read_table(path).drop_columns(["image_id"]))
    with pytest.raises(UserError, match="lacks columns: image_id"):
        run(folders, tmp_path / "out")
    path.unlink()
    with pytest.raises(UserError, match=r"images\.parquet"):
        run(folders, tmp_path / "out")


def test_column_types_are_checked(folders: Folders, tmp_path: Path) -> None:
    path = folders[0]["alpha"] / "manifest.parquet"
    table = manifest.read_table(path)
    place = table.schema.get_field_index("pdq_quality")
    wide = table.column("pdq_quality").cast(pa.int64())
    manifest.write_table(path, table.set_column(place, "pdq_quality", wide))
    with pytest.raises(UserError, match="agreed columns and types fails in alpha"):
        run(folders, tmp_path / "out")


def test_options_refuse_nonsense() -> None:
    for bad in ({"fg_fraction": (0.9, 0.1)}, {"min_side": 0}, {"soft_fraction": 2}, {"minside": 3}):
        with pytest.raises(ValidationError):
            QualityOptions(**bad)


def test_importing_the_gate_imports_neither_pandas_nor_great_expectations() -> None:
    code = (
        "import sys, hqsam_datasets.quality.gate; sys.exit(bool({'pandas', 'great_expectations'} "
        "& set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(sys.path)}
        ).returncode
        == 0
    )
