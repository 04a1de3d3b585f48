"""Masks of another program as a system: what we export and read back scores the same; what does not fit is one message."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hqsam import systems
from hqsam.systems.base import Entry
from hqsam_base.errors import UserError
from hqsam_metrics import exports, given
from hqsam_metrics.base import load_score, score_options
from hqsam_metrics.benchmark import score_benchmark
from hqsam_metrics.benchmark_data import Benchmark, load_predictions
from tests.metrics.benchmark_set import Set, coco_like, davis_like, masks_like, ytvis_like

KIND = systems.load("predictions")
assert isinstance(KIND, systems.GivenKind)
CASES = {
    "coco": {"metric": "coco", "score_rule": "detector_x_iou"},
    "lvis": {"metric": "lvis", "score_rule": "detector", "max_dets": 300},
    "ytvis": {"metric": "ytvis", "score_rule": "detector"},
    "davis": {"metric": "davis"},
    "png": {"metric": "masks"},
}


def a_set(form: str, root: Path, masks: Any, pairs: Any) -> Set:
    if form == "png":
        return masks_like(root, masks, pairs)
    if form in ("coco", "lvis"):
        return coco_like(
            root, form, {"coco": "results_perturbed.json", "lvis": "results.json"}[form]
        )
    return {"ytvis": ytvis_like, "davis": davis_like}[form](root)


def options(form: str) -> Any:
    return score_options({"version": load_score(CASES[form]["metric"]).version, **CASES[form]})


def exported(one: Set, form: str) -> Path:
    """The masks of `hq_sum` in the format of another program."""
    out = one.root / ("theirs" if exports.load(form).folder else "theirs.json")
    if exports.load(form).folder:
        out.mkdir()
    data = load_predictions(
        Benchmark(one.root / "benchmark"), one.root / "predictions", "boxes", "hq_sum"
    )
    exports.load(form).write(data, options(form), out)
    return out / "pred" if form == "png" else out


def entry(path: Path, **more: Any) -> Entry:
    return Entry("theirs", KIND.options(kind="predictions", path=path, **more))


def read_back(one: Set, form: str, path: Path) -> dict[str, Any]:
    """The metrics of a folder that holds nothing but the given masks."""
    folder = one.root / "given"
    folder.mkdir()
    told = KIND.write(entry(path), one.root / "benchmark", folder)
    info = {"model": "m", "systems": ["theirs"], "protocols": {"theirs": told.protocol}}
    (folder / "predict.json").write_text(json.dumps(info))
    score_benchmark(
        benchmark=one.root / "benchmark",
        predictions=folder,
        options=options(form),
        out_json=one.root / "given.json",
        out=one.root / "given_scores",
        progress=lambda *words: None,
    )
    [row] = json.loads((one.root / "given.json").read_bytes())["results"]
    return row


@pytest.mark.parametrize("form", sorted(CASES))
def test_what_is_exported_scores_the_same_when_it_is_read(
    form: str, tmp_path: Path, golden_masks: Any, golden_pairs: Any
) -> None:
    one = a_set(form, tmp_path, golden_masks, golden_pairs)
    [want] = [r for r in one.score(**CASES[form])["results"] if r["system"] == "hq_sum"]
    row = read_back(one, form, exported(one, form))
    assert row["metrics"].keys() == want["metrics"].keys()
    for name, value in want["metrics"].items():
        assert row["metrics"][name] == (value if value is None else pytest.approx(value, abs=1e-9))
    assert (row["n_scored"], row["n_expected"]) == (want["n_scored"], want["n_expected"])
    # The same instances, so that differences are paired.
    units = [
        {(r["key"], r["unit"]) for r in table.to_pylist() if r["system"] == system}
        for table, system in (
            (pq.read_table(tmp_path / "scores" / "instances.parquet"), "hq_sum"),
            (pq.read_table(tmp_path / "given_scores" / "instances.parquet"), "theirs"),
        )
    ]
    assert units[0] == units[1] != set()
    assert row["protocol"]["predictions"].startswith(("theirs", "pred"))
    assert row["protocol_hash"] != want["protocol_hash"]


def refused(one: Set, path: Path) -> UserError:
    with pytest.raises(UserError) as error:
        given.read(path, Benchmark(one.root / "benchmark"), "boxes")
    return error.value


def test_results_that_do_not_fit_the_benchmark(tmp_path: Path) -> None:
    one = coco_like(tmp_path, "coco", "results_perturbed.json")
    one.write()
    path = exported(one, "coco")
    rows = json.loads(path.read_bytes())

    def changed(**more: Any) -> Path:
        first = {key: value for key, value in {**rows[0], **more}.items() if value is not None}
        path.write_text(json.dumps([first, *rows[1:]]))
        return path

    assert "987654" in str(refused(one, changed(image_id=987654)))
    assert "score" in str(refused(one, changed(score=None)))
    with pytest.raises(UserError, match="result 0 has no `score` that is a finite number"):
        given.check_records(changed(score=10**400), "coco")
    assert "segmentation" in str(refused(one, changed(segmentation=None)))
    assert "a folder" in refused(one, tmp_path).problem
    with pytest.raises(UserError, match="no such predictions"):
        KIND.inputs(entry(tmp_path / "none.json"))
    assert KIND.inputs(entry(path))["theirs.json"] != KIND.inputs(entry(changed(score=0.5)))


def test_pictures_that_do_not_fit_the_benchmark(
    tmp_path: Path, golden_masks: Any, golden_pairs: Any
) -> None:
    one = masks_like(tmp_path, golden_masks, golden_pairs)
    one.write()
    path = exported(one, "png")
    first = min(path.iterdir())
    name = first.name
    first.rename(tmp_path / name)
    assert "1 of 24 objects have no mask" in refused(one, path).problem
    # An image with one object: its picture may be called like the image.
    shutil.copy(tmp_path / name, path / f"k{name[1:]}")
    assert len(given.read(path, Benchmark(tmp_path / "benchmark"), "boxes").key) == 24
    shutil.copy(tmp_path / name, path / "stranger.png")
    assert refused(one, path).key == "stranger"
    (path / "stranger.png").unlink()
    sizes = {m.stem: m.stat().st_size for m in path.iterdir()}
    other = next(n for n in sizes if n[1:] != name[1:-4] and n[0] == "p")
    shutil.copy(path / f"{other}.png", path / f"k{name[1:]}")
    one_size, two_size = (
        golden_pairs[key[1:]]["height"] * 10**5 + golden_pairs[key[1:]]["width"]
        for key in (name[:-4], other)
    )
    if one_size != two_size:
        assert "its image" in refused(one, path).problem
    (path / f"k{name[1:]}").unlink()
    os.mkfifo(path / f"k{name[1:]}")  # nobody writes into it
    with pytest.raises(UserError, match="no regular file"):
        KIND.inputs(entry(path))
    assert "no regular file" in refused(one, path).problem


@pytest.mark.parametrize("form", ["coco", "lvis", "ytvis"])
def test_results_that_count_categories_otherwise_are_named(
    form: str, tmp_path: Path, golden_masks: Any, golden_pairs: Any
) -> None:
    one = a_set(form, tmp_path, golden_masks, golden_pairs)
    one.write()
    objects = json.loads((tmp_path / "benchmark" / "gt.json").read_bytes())["annotations"]
    last = max(row["category_id"] for row in objects)
    theirs = [
        {**row, "category_id": last + 1, "score": 0.9}
        for row in objects
        if row["category_id"] == last
    ]
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(theirs))
    assert any("take 1 from each" in said for said in read_back(one, form, path)["warnings"])
