"""docs/archives.md and the paper profiles against the code: every entry is one that the stages would take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hqsam.model import checkpoint
from hqsam_base.errors import UserError
from hqsam_datasets import benchmarks, sources
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.prepare.index import BenchmarkOptions
from hqsam_datasets.sources.base import SourceOptions
from hqsam_pipelines.config import overlays
from tests import REPOSITORY

PAPER: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs" / "paper.yaml").read_text())
_TEXT = (REPOSITORY / "docs" / "archives.md").read_text()
BLOCKS: list[dict[str, Any]] = [
    found
    for block in re.findall(r"```yaml\n(.*?)```", _TEXT, re.DOTALL)
    if "archives" in (found := yaml.safe_load(block))
]
ORIGINALS, ALL, HQ_SAM = (
    yaml.safe_load(overlays.compose(REPOSITORY, name))
    for name in ("paper_originals", "paper_all", "paper_published")
)
CONFIGS = [PAPER, ORIGINALS, ALL, HQ_SAM, *BLOCKS]
# Of one and the same archive, whatever the address.
PUBLISHED = {
    "DIS5K.zip": 3529707387,
    "cascade_psp.zip": 1365490019,
    "thin_object_detection.zip": 2445237905,
}


@pytest.mark.parametrize("config", CONFIGS, ids=[str(number) for number in range(len(CONFIGS))])
def test_entries_are_valid_and_complete(config: dict[str, Any]) -> None:
    archives = {
        name: ArchiveSpec.model_validate(entry)
        for block in CONFIGS
        for name, entry in block["archives"].items()
    }
    for name in config["archives"]:
        assert archives[name].licence, f"{name} has no licence"
        only_by_hand = any(
            url.startswith("drop://") for file in archives[name].files for url in file.urls[:1]
        )
        assert not only_by_hand or archives[name].instructions, (
            f"{name}: how does a person get the file?"
        )
    for name, entry in config.get("sources", {}).items():
        assert sources.load(SourceOptions.model_validate(entry).kind or name)
        assert entry["archive"] in archives
    for name, entry in config.get("benchmarks", {}).items():
        assert (
            benchmarks.of_section(
                name, entry["kind"], BenchmarkOptions.model_validate(entry["index"])
            ).name
            == name
        )
        assert entry["archive"] in archives


@pytest.mark.parametrize("config", [PAPER, ORIGINALS], ids=["paper", "originals"])
def test_expected_counts_are_the_published_ones_less_the_known_bad(config: dict[str, Any]) -> None:
    six = ("dis5k", "thinobject5k", "fss1000", "ecssd", "msra10k", "duts")
    sheets = {name: sources.load(name).sheet for name in six}
    assert [sheets[name].n_pairs for name in six] == [3000, 4748, 10_000, 1000, 10_000, 15_572]
    expected = {name: config["sources"][name]["expected"] for name in six}
    assert expected == {
        name: sheet.n_pairs - len(sheet.known_bad) for name, sheet in sheets.items()
    }
    assert sum(expected.values()) == 44_320 - 9


def test_a_mirror_is_of_the_same_file() -> None:
    """DIS5K.zip exists in three versions under one name: only the one with the digest may be a mirror."""
    for entry in PAPER["archives"].values():
        for file in entry["files"]:
            if file["name"] in PUBLISHED:
                assert file["bytes"] == PUBLISHED[file["name"]] and len(file["sha256"]) == 64
                assert all("gdrive" not in url for url in file["urls"])
    sheet = sources.load("dis5k").sheet
    assert sheet.checksums["DIS5K.zip"] == PAPER["archives"]["dis5k"]["files"][0]["sha256"]


def test_every_evaluation_set_has_an_entry() -> None:
    own = {"folder", "label_maps", "coco_json", "lvis_json"}
    assert set(ALL["benchmarks"]) == set(benchmarks.names()) - own
    counts = {
        name: entry["index"].get("expected_images") for name, entry in ALL["benchmarks"].items()
    }
    assert {name: n for name, n in counts.items() if n is not None} == {
        "dis_vd": 470,
        "dis_te1": 500,
        "dis_te2": 500,
        "dis_te3": 500,
        "dis_te4": 500,
        "coift": 280,
        "hrsod": 287,
        "thinobject5k_test": 500,
        "big": 100,
        "coco": 5000,
        "lvis": 19_809,
        "uvo": 7356,
    }
    assert ALL["benchmarks"]["sginw"]["score"]["metric"] == "sginw"


@pytest.mark.parametrize(
    "config", [PAPER, ORIGINALS, ALL, HQ_SAM], ids=["paper", "originals", "all", "published"]
)
def test_what_no_program_can_get_for_sure_is_optional_and_nothing_else(
    config: dict[str, Any],
) -> None:
    trained_on = {entry["archive"] for entry in config["sources"].values()}
    for name, entry in config["archives"].items():
        for file in ArchiveSpec.model_validate(entry).files:
            by_hand = any(url.startswith("drop://") for url in file.urls)
            by_quota = name not in trained_on and all(
                url.startswith("gdrive://") for url in file.urls
            )
            assert file.optional == (by_hand or by_quota), f"{name}/{file.name}"


def test_published_weights_are_those_that_the_loader_knows() -> None:
    """One archive a model, of the name and the digest that `hqsam checkpoint inspect` tells as published."""
    assert HQ_SAM["train"]["epochs"] == 0
    assert {entry["backbone"] for entry in HQ_SAM["models"].values()} == {
        "vit_b",
        "vit_l",
        "vit_h",
        "vit_tiny",
    }
    for name, entry in HQ_SAM["models"].items():
        path = Path(entry["checkpoint"])
        (file,) = HQ_SAM["archives"][path.parent.name]["files"]
        assert file["name"] == path.name == f"sam_hq_{entry['backbone']}.pth", name
        assert checkpoint.KNOWN_SHA256[file["sha256"]] == file["name"]


@pytest.mark.parametrize("option", ["images", "masks", "annotations"])
def test_a_published_set_is_not_told_where_its_files_are(tmp_path: Path, option: str) -> None:
    options = SourceOptions.model_validate({"archive": "ecssd", "kind": "ecssd", option: "photos"})
    with pytest.raises(
        UserError, match=f"(?s)only own data have this key.*sources.mine.{option}.*kind: folder"
    ):
        sources.load("ecssd").scan("mine", tmp_path, options)
