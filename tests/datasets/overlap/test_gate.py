"""The overlap gate finds what is planted, calls nothing else a copy, and does with it what the policy says."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hqsam_base.atomic import read_json, read_jsonl
from hqsam_base.errors import UserError
from hqsam_datasets.embedded.scenes import EVAL_FAMILIES, TRAIN_FAMILIES
from hqsam_datasets.formats.manifest import read_rows, read_table, write_table
from hqsam_datasets.overlap.gate import find_overlap
from hqsam_datasets.overlap.options import OverlapOptions
from perf.data.overlap_folders import Picture, quiet, write_benchmark, write_source
from perf.data.overlap_recall import DISGUISES, scene

N_SCENES = 4
KIND_OF = {
    "exact": "exact",
    "jpeg": "near",
    "resize": "near",
    "mirror": "near",
    "rotate90": "near",
    "brightness": "near",
    "grey": "near",
    "crop70": "crop",
    "background": "background",
    "foreground": "foreground",
}


@functools.cache
def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="overlap-")


@functools.cache
def scenes() -> list[tuple[str, Any, Any]]:
    return [(f"eval_{i}", *scene((21, 4 * i), EVAL_FAMILIES)[:2]) for i in range(N_SCENES)]


@functools.cache
def folders() -> tuple[dict[str, Path], dict[str, Path]]:
    """Every disguise of every scene, unrelated scenes of the same families, one training image twice, two blanks."""
    root = Path(_home().name)
    pictures = [Picture(f"train_other{i}", *scene((22, i), EVAL_FAMILIES)[:2]) for i in range(8)]
    pictures.append(Picture("train_twin", *scene((22, 2), EVAL_FAMILIES)[:2], 70))
    for number, (name, disguise) in enumerate(DISGUISES.items()):
        for i, (_, image, mask) in enumerate(scenes()):
            made, made_mask, quality = disguise(np.random.default_rng((3, number, i)), image, mask)
            pictures.append(
                Picture(f"train_{name}-{i}", np.ascontiguousarray(made), made_mask.copy(), quality)
            )
    blank = np.full((64, 80, 3), 200, np.uint8), np.ones((64, 80), np.bool_)
    pictures += [
        Picture("train_blank", blank[0] + np.uint8(9), blank[1]),
        Picture("train_void", *blank),
    ]
    evaluation = [Picture(key, image, mask) for key, image, mask in scenes()] + [
        Picture("eval_void", *blank)
    ]
    samples = {"train": write_source(root / "samples" / "train", "train", pictures)}
    return samples, {"eval": write_benchmark(root / "benchmarks" / "eval", "eval", evaluation)}


def run(out: Path, **options: Any) -> dict[str, Any]:
    samples, benchmarks = folders()
    return find_overlap(
        samples=samples,
        benchmarks=benchmarks,
        out=out,
        options=OverlapOptions(**options),
        progress=quiet,
    )


@functools.cache
def result() -> tuple[dict[str, Any], Path]:
    out = Path(_home().name) / "overlap"
    return run(out), out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def small(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """One evaluation scene; in training an exact copy of it, a recompressed one, and another scene."""
    _, image, mask = scenes()[0]
    other = Picture("t_b", *scene((30, 0), TRAIN_FAMILIES)[:2])
    training = [Picture("t_a", image, mask), other, Picture("t_c", image, mask, 60)]
    samples = {"t": write_source(root / "samples" / "t", "t", training)}
    return samples, {
        "e": write_benchmark(root / "benchmarks" / "e", "e", [Picture("e_0", image, mask)])
    }


def search(
    root: Path, samples: dict[str, Path], benchmarks: dict[str, Path], **options: Any
) -> dict[str, Any]:
    chosen = OverlapOptions(**options)
    return find_overlap(
        samples=samples, benchmarks=benchmarks, out=root / "out", options=chosen, progress=quiet
    )


def test_finds_every_disguise_and_nothing_else() -> None:
    _, out = result()
    rows = [row for row in read_rows(out / "pairs.parquet") if row["scope"] == "eval"]
    found = {row["train_key"]: row for row in rows}
    assert len(found) == len(rows)
    wanted = {
        f"train_{name}-{i}": (name, f"eval_{i}") for name in DISGUISES for i in range(N_SCENES)
    }
    wanted["train_void"] = ("exact", "eval_void")
    assert set(found) - set(wanted) == set(), "an unrelated image is called a copy"
    missed = set(wanted) - set(found)
    assert {wanted[key][0] for key in missed} <= {"foreground"}
    assert len(missed) <= 1
    for key, row in found.items():
        name, original = wanted[key]
        assert (row["group"], row["key"]) == ("eval", original)
        assert row["kind"] == KIND_OF[name], (key, row)
        assert row["excluded"]


def test_variants_are_named() -> None:
    _, out = result()
    found = {
        row["train_key"]: row["variant"]
        for row in read_rows(out / "pairs.parquet")
        if row["scope"] == "eval"
    }
    for i in range(N_SCENES):
        assert found[f"train_mirror-{i}"] == "mirror"
        # The copy is turned counter-clockwise; turned clockwise it is the original again.
        assert found[f"train_rotate90-{i}"] == "rotate90"


def test_affine_maps_training_pixels_to_evaluation_pixels() -> None:
    _, out = result()
    rows = {
        row["train_key"]: row for row in read_rows(out / "pairs.parquet") if row["scope"] == "eval"
    }
    for i, (_, image, _) in enumerate(scenes()):
        height, width = image.shape[:2]
        x, y = 0.3 * width, 0.6 * height
        for name, point in {
            "jpeg": (x, y),
            "mirror": (width - 1 - x, y),
            "rotate90": (y, width - 1 - x),
        }.items():
            a, b, c, d, e, f = rows[f"train_{name}-{i}"]["affine"]
            there = (a * point[0] + b * point[1] + c, d * point[0] + e * point[1] + f)
            assert np.hypot(there[0] - x, there[1] - y) < 1.5, (name, i)


def test_training_twins_are_reported_and_stay() -> None:
    summary, out = result()
    twins = [row for row in read_rows(out / "pairs.parquet") if row["scope"] == "train"]
    assert ("train_other2", "train_twin") in {(row["train_key"], row["key"]) for row in twins}
    assert not any(row["excluded"] for row in twins)
    excluded = {line["key"] for line in read_jsonl(out / "exclusions.jsonl")}
    assert not excluded & {"train_twin", "train_other2"}
    assert summary["train_train"]["near"] >= 1


def test_summary_agrees_with_the_tables() -> None:
    summary, out = result()
    rows = [row for row in read_rows(out / "pairs.parquet") if row["scope"] == "eval"]
    lines = read_jsonl(out / "exclusions.jsonl")
    assert summary == read_json(out / "overlap.json")
    assert summary["gate"] == "excluded"
    assert summary["n_pairs"] == len(rows) == sum(summary["counts"].values())
    assert summary["counts"] == {k: sum(r["kind"] == k for r in rows) for k in summary["counts"]}
    assert summary["by_benchmark"]["eval"] == summary["by_source"]["train"] == summary["counts"]
    assert [line["key"] for line in lines] == sorted({row["train_key"] for row in rows})
    assert all(line["reason"] and line["pair"].startswith("eval/eval_") for line in lines)
    pictures = sorted(p.name for p in (out / "gallery").iterdir())
    assert pictures == [entry["file"] for entry in summary["gallery"]]
    assert 10 <= len(pictures) <= 24
    assert {entry["kind"] for entry in summary["gallery"]} == {
        k for k, n in summary["counts"].items() if n
    }


def test_same_bytes_for_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = result()
    monkeypatch.setenv("HQSAM_WORKERS", "3")
    run(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(out)


def test_keep_keeps_and_says_so(tmp_path: Path) -> None:
    summary = search(tmp_path, *small(tmp_path), unresolved="keep", drop=("t_c",))
    assert summary["gate"] == "kept"
    assert summary["kept"] == ["t_a"]
    lines = read_jsonl(tmp_path / "out" / "exclusions.jsonl")
    assert lines == [{"key": "t_c", "reason": "near", "pair": "e/e_0"}]
    rows = read_rows(tmp_path / "out" / "pairs.parquet")
    assert {row["train_key"] for row in rows if row["excluded"]} == {"t_c"}


def test_a_listed_image_goes_even_without_a_pair(tmp_path: Path) -> None:
    summary = search(tmp_path, *small(tmp_path), drop=("t_b",), keep=("t_c",))
    assert summary["gate"] == "kept"
    assert [
        (line["key"], line["reason"]) for line in read_jsonl(tmp_path / "out" / "exclusions.jsonl")
    ] == [
        ("t_a", "exact"),
        ("t_b", "listed"),
    ]


def test_stop_names_pairs_and_cure_and_leaves_the_output_alone(tmp_path: Path) -> None:
    folders_ = small(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "overlap.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        search(tmp_path, *folders_, unresolved="stop", keep=("t_a",))
    assert "t_c ~ e/e_0 (near)" in str(caught.value)
    assert "t_a" not in str(caught.value)
    assert "overlap.drop" in str(caught.value)
    assert (tmp_path / "out" / "overlap.json").read_text() == "{}"
    assert list((tmp_path / "out-unresolved" / "gallery").iterdir())
    summary = search(tmp_path, *folders_, unresolved="stop", keep=("t_a",), drop=("t_c",))
    assert (summary["gate"], summary["kept"]) == ("kept", ["t_a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ("nobody",)}, r"overlap\.keep names training images that do not exist"),
        ({"keep": ("t_b",), "drop": ("t_b",)}, r"in overlap\.keep and in overlap\.drop"),
    ],
)
def test_lists_are_checked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        search(tmp_path, *small(tmp_path), **options)
    assert not (tmp_path / "out").exists()


def test_options_refuse_unknown_keys_and_wild_values() -> None:
    for bad in ({"haming": 31}, {"unresolved": "ignore"}, {"hamming": 300}, {"min_tiles": 1}):
        with pytest.raises(ValidationError):
            OverlapOptions(**bad)


def test_no_training_or_no_evaluation_images(tmp_path: Path) -> None:
    samples, benchmarks = small(tmp_path)
    assert search(tmp_path, samples, {})["gate"] == "clean"
    assert search(tmp_path, {}, benchmarks)["n_train"] == 0
    assert search(tmp_path, {}, {})["n_pairs"] == 0
    assert json.loads((tmp_path / "out" / "overlap.json").read_text())["gate"] == "no training data"


def test_damaged_hashes_are_named(tmp_path: Path) -> None:
    import pyarrow as pa

    samples, benchmarks = small(tmp_path)
    path = samples["t"] / "manifest.parquet"
    table = read_table(path)
    broken = table.set_column(
        table.schema.get_field_index("tiles"), "tiles", pa.array([b"T1", b"??", b"T1"], pa.binary())
    )
    write_table(path, broken)
    with pytest.raises(UserError) as caught:
        search(tmp_path, samples, benchmarks)
    assert caught.value.key == "t_b"
    assert "manifest.parquet" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_missing_table_and_missing_image_are_named(tmp_path: Path) -> None:
    samples, benchmarks = small(tmp_path)
    (tar,) = samples["t"].glob("*.tar")
    tar.rename(tar.with_name("gone"))
    with pytest.raises(UserError, match=r"samples-00000\.tar"):
        search(tmp_path, samples, benchmarks)
    (benchmarks["e"] / "images.parquet").unlink()
    with pytest.raises(UserError, match=r"images\.parquet"):
        search(tmp_path, samples, benchmarks)
    assert not (tmp_path / "out").exists()
