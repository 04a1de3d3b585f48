"""Optional files that are unavailable: said, recorded, and left out all the way to the overlap gate and the data docs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.fetch import archive
from hqsam_datasets.fetch.archive import missing_by_hand, renewed
from hqsam_datasets.fetch.extract import extracted
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.overlap.gate import find_overlap
from hqsam_datasets.overlap.options import OverlapOptions
from hqsam_datasets.prepare.index import index
from hqsam_datasets.quality.gate import validate
from hqsam_datasets.quality.options import QualityOptions
from tests.datasets.embedded_tree import fetched, params
from tests.datasets.fetch.archives import QUICK, a_zip, quiet
from tests.datasets.fetch.server import Behaviour, serving
from tests.datasets.trees import ecssd
from tests.datasets.trees import run as normalised

BENCHMARKS: dict[str, Any] = params()["benchmarks"]


def fetch(files: list[dict[str, Any]], out: Path, said: list[str]) -> dict[str, Any]:
    spec = ArchiveSpec.model_validate({"files": files, "instructions": "sign in at example.org"})
    return archive.fetch(
        spec, out, progress=quiet, policy=QUICK, sleep=lambda s: None, notice=said.append
    )


def test_an_optional_file_is_recorded_as_missing_and_fetched_later(tmp_path: Path) -> None:
    out, said = tmp_path / "data" / "archives" / "set", list[str]()
    one, two = Behaviour(a_zip(1)), Behaviour(a_zip(2), status=lambda n: 404 if n == 0 else 200)
    with serving({"/1": one, "/2": two}) as base:
        files = [
            {"name": "1.zip", "urls": [f"{base}/1"]},
            {"name": "2.zip", "urls": [f"{base}/2"], "optional": True},
        ]
        result = fetch(files, out, said)
        assert [record["name"] for record in result["files"]] == ["1.zip"]
        assert (
            list(result["missing"]) == ["2.zip"]
            and "sign in at example.org" in result["missing"]["2.zip"]
        )
        assert "dvc repro --force fetch@set" in result["missing"]["2.zip"]
        assert str(tmp_path) not in json.dumps(result), "the record is the same on every machine"
        assert (
            len(said) == 1
            and "HTTP 404" in said[0]
            and str(tmp_path / "data" / "drop" / "set" / "2.zip") in said[0]
        )
        assert json.loads((out / "fetch.json").read_bytes()) == result
        again = fetch(files, out, said)
    assert "missing" not in again and len(again["files"]) == 2 and len(said) == 1
    assert (len(one.requests), len(two.requests)) == (1, 2), (
        "what is there is verified, not fetched again"
    )
    assert (out / "2.zip").read_bytes() == a_zip(2)


def test_what_only_a_person_can_get_is_known_beforehand(tmp_path: Path) -> None:
    out = tmp_path / "data" / "archives" / "set"
    files = [
        {"name": "a.zip", "urls": ["drop://a.zip"]},
        {"name": "b.zip", "urls": ["drop://b.zip"], "optional": True},
        {"name": "c.zip", "urls": ["drop://c.zip", "http://127.0.0.1:9/c.zip"], "optional": True},
    ]
    spec = ArchiveSpec.model_validate({"files": files})
    assert missing_by_hand(spec, out) == (["a.zip"], ["b.zip"])
    local = ArchiveSpec.model_validate(
        {"files": [{"name": "d.zip", "urls": [f"file://{tmp_path}/my d.zip"]}]}
    )
    assert missing_by_hand(local, out) == (["d.zip"], [])
    (tmp_path / "my d.zip").write_bytes(a_zip())
    assert missing_by_hand(local, out) == ([], [])
    (tmp_path / "data" / "drop" / "set").mkdir(parents=True)
    (tmp_path / "data" / "drop" / "set" / "a.zip").write_bytes(a_zip())
    out.mkdir(parents=True)
    (out / "b.zip").write_bytes(a_zip())
    assert missing_by_hand(spec, out) == ([], [])


def test_what_changed_on_this_machine_is_worth_fetching_again(tmp_path: Path) -> None:
    source, archives = tmp_path / "mine.zip", tmp_path / "data" / "archives"
    files: list[dict[str, Any]] = [
        {"name": "a.zip", "urls": [f"file://{source}"]},
        {"name": "b.zip", "urls": ["drop://b.zip"], "optional": True},
    ]
    specs = {"set": ArchiveSpec.model_validate({"files": files})}
    assert renewed(archives, specs) == {}, "nothing was fetched yet"
    source.write_bytes(a_zip(1))
    fetch(files, archives / "set", [])
    assert renewed(archives, specs) == {}
    source.write_bytes(a_zip(1))
    assert renewed(archives, specs) == {}, "written again with the same bytes"
    source.write_bytes(a_zip(2))
    assert len(a_zip(1)) == len(a_zip(2)) and renewed(archives, specs) == {"set": source}
    fetch(files, archives / "set", [])
    assert renewed(archives, specs) == {} and (archives / "set" / "a.zip").read_bytes() == a_zip(2)
    source.unlink()
    assert renewed(archives, specs) == {}, "what was fetched is there still"
    dropped = tmp_path / "data" / "drop" / "b.zip"
    dropped.parent.mkdir()
    dropped.write_bytes(a_zip())
    assert renewed(archives, specs) == {"set": dropped}


def test_an_archive_of_which_nothing_can_be_had_is_empty(tmp_path: Path) -> None:
    out, said = tmp_path / "archives" / "set", list[str]()
    result = fetch([{"name": "a.json", "urls": ["drop://a.json"], "optional": True}], out, said)
    assert result["files"] == [] and [p.name for p in out.iterdir()] == ["fetch.json"]
    root = extracted(out, tmp_path / "extracted")
    assert [p.name for p in root.iterdir()] == [".complete.json"]


def test_a_damaged_file_that_is_there_is_fetched_again(tmp_path: Path) -> None:
    out, served = tmp_path / "archives" / "set", Behaviour(a_zip(1))
    with serving({"/1": served}) as base:
        files = [{"name": "1.zip", "urls": [f"{base}/1"]}]
        fetch(files, out, [])
        damaged = bytearray(a_zip(1))
        damaged[1000] ^= 1
        (out / "1.zip").write_bytes(damaged)
        fetch([*files, {"name": "2.zip", "urls": [f"{base}/1"]}], out, [])
    assert (out / "1.zip").read_bytes() == a_zip(1) and len(served.requests) == 3


Make = Callable[[str, list[str]], Path]


@pytest.fixture
def lacking(tmp_path: Path) -> Make:
    """The extracted tree of an embedded archive whose named files are unavailable."""

    def make(name: str, files: list[str]) -> Path:
        folder = Path(shutil.copytree(fetched(name), tmp_path / "archives" / name))
        record = json.loads((folder / "fetch.json").read_bytes())
        for file in files:
            (folder / file).unlink()
        record["files"] = [entry for entry in record["files"] if entry["name"] not in files]
        record["missing"] = dict.fromkeys(files, "ask the authors")
        (folder / "fetch.json").write_text(json.dumps(record))
        return extracted(folder, tmp_path / "extracted")

    return make


def indexed(name: str, root: Path, out: Path) -> dict[str, Any]:
    options = BenchmarkOptions(**BENCHMARKS[name]["index"])
    return index(name, root=root, out=out, options=options, progress=quiet)


@pytest.mark.parametrize(
    ("name", "archive_name", "file", "lost", "left"),
    [
        ("coco", "coco", "coco_instances_results.json", "detector_box", []),
        ("lvis", "lvis", "lvis_instances_results.json", "detector_box", []),
        ("hq_ytvis", "hq_ytvis", "mask2former_results.json", "tracker_box", []),
        ("davis", "davis", "xmem_results.zip", "tracker_box", []),
        ("big", "big", "BIG_coarse.zip", "coarse_mask", ["gt_box"]),
    ],
)
def test_without_its_prompts_a_set_keeps_its_images(
    lacking: Make,
    tmp_path: Path,
    name: str,
    archive_name: str,
    file: str,
    lost: str,
    left: list[str],
) -> None:
    summary = indexed(name, lacking(archive_name, [file]), tmp_path / "out")
    assert summary["n_images"] == BENCHMARKS[name]["index"]["expected_images"]
    assert summary["prompt_sets"] == list(summary["n_prompts"]) == left
    assert summary["missing"] == {"prompt_sets": [lost], "files": {file: "ask the authors"}}
    assert {row["prompt_set"] for row in read_rows(tmp_path / "out" / "prompts.parquet")} == set(
        left
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("uvo", "uvo_videos_sparse_frames.zip"),
        ("uvo", "UVO_frame_val.json"),
        ("hq_ytvis", "train_all_frames.zip"),
        ("hq_ytvis", "ytvis_hq-test.json"),
    ],
)
def test_without_images_or_ground_truth_a_set_is_left_out(
    lacking: Make, tmp_path: Path, name: str, file: str
) -> None:
    summary = indexed(name, lacking(name, [file]), tmp_path / "out")
    assert (summary["n_images"], summary["n_instances"], summary["prompt_sets"]) == (0, 0, [])
    assert summary["missing"]["files"] == {file: "ask the authors"}


def test_what_is_damaged_is_no_less_an_error(lacking: Make, tmp_path: Path) -> None:
    root = lacking("coco", ["coco_instances_results.json"])
    next(root.rglob("val2017/*.jpg")).write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be used"):
        indexed("coco", root, tmp_path / "out")
    whole = extracted(fetched("coco"), tmp_path / "whole")
    next(whole.rglob("coco_instances_results.json")).unlink()
    with pytest.raises(UserError, match=r"none of coco_instances_results\.json found"):
        indexed("coco", whole, tmp_path / "out")


def test_the_gates_go_on_and_say_what_they_did_not_see(lacking: Make, tmp_path: Path) -> None:
    ecssd(tmp_path / "in")
    normalised("ecssd", tmp_path / "in", tmp_path / "samples")
    samples = {"ecssd": tmp_path / "samples"}
    benchmarks = {name: tmp_path / name for name in ("uvo", "coco")}
    indexed("uvo", lacking("uvo", ["uvo_videos_sparse_frames.zip"]), benchmarks["uvo"])
    indexed("coco", lacking("coco", ["coco_instances_results.json"]), benchmarks["coco"])
    found = find_overlap(
        samples=samples,
        benchmarks=benchmarks,
        out=tmp_path / "overlap",
        options=OverlapOptions(),
        progress=quiet,
    )
    assert found["not_compared"] == ["uvo"] and list(found["by_benchmark"]) == ["coco"]
    checked = validate(
        samples=samples,
        benchmarks=benchmarks,
        out=tmp_path / "checked",
        options=QualityOptions(),
        progress=quiet,
    )
    assert checked["success"] and sorted(checked["missing"]) == ["coco", "uvo"]
    page = (tmp_path / "checked" / "data_docs.html").read_text()
    assert "Unavailable files" in page and "uvo_videos_sparse_frames.zip - ask the authors" in page
