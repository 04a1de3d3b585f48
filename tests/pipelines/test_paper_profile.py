"""The paper profiles with small archives in the published layouts, under the published names, in a drop folder.

Only what the size decides is changed, digests, lengths and counts, and mirrors of optional files
are left out. Everything else (archives, file names, layouts, adapters, prompt sets, what nobody can
download) is as in `hqsam profile paper`.
`make test` takes a part of the sets through DVC: it is there because a mistake in the profile costs
a user days of downloads, and other tests run every adapter on its own. `make test-all` takes all of
them.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hqsam_base import atomic
from hqsam_base.errors import UserError
from hqsam_datasets.fetch import first_use
from hqsam_datasets.fetch.archive import fetch
from hqsam_datasets.fetch.extract import extracted
from hqsam_datasets.fetch.places import DROP_FOLDER_VARIABLE
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.prepare.normalise import normalise
from hqsam_datasets.sources.base import SourceOptions
from hqsam_pipelines.config import overlays
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.runner import doctor, host_client, server
from tests import FULL, REPOSITORY
from tests.datasets.embedded_tree import fetched
from tests.pipelines.working_copy import clone, run

SAMPLE: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs" / "sample.yaml").read_text())
PAPER: dict[str, Any] = yaml.safe_load((REPOSITORY / "configs" / "paper.yaml").read_text())
ORIGINALS: dict[str, Any] = yaml.safe_load(overlays.compose(REPOSITORY, "paper_originals"))
BY_HAND = {
    name: [
        file["name"]
        for file in entry["files"]
        if any(url.startswith("drop://") for url in file["urls"])
    ]
    for name, entry in PAPER["archives"].items()
}


# Sets with files that nobody can download, with and without which an index can be made, and sources
# whose images they share.
PART = {
    "archives": ("dis5k", "coco", "uvo", "big", "hq_ytvis"),
    "sources": ("dis5k",),
    "benchmarks": ("coco", "uvo", "big", "hq_ytvis"),
}


def part(profile: dict[str, Any]) -> dict[str, Any]:
    """The profile with some of its sets, or with all of them."""
    return (
        profile
        if FULL
        else profile | {k: {n: profile[k][n] for n in names} for k, names in PART.items()}
    )


def quiet(done: int, total: int, what: str) -> None:
    """Report nothing."""


def small(profile: dict[str, Any]) -> dict[str, Any]:
    """The profile without what only files of the real size can pass."""
    text = json.dumps(
        {**profile, "archives": {k: v for k, v in profile["archives"].items() if k != "sam_vit_l"}}
    )
    found: dict[str, Any] = json.loads(text)
    for name, entry in found["archives"].items():
        for file in entry["files"]:
            for fact in ("bytes", "sha256", "sha1", "md5"):
                file.pop(fact, None)
            if file["name"] in BY_HAND.get(name, ()):  # mirrors cannot be asked here
                file["urls"] = [url for url in file["urls"] if url.startswith("drop://")]
    for name, entry in found["sources"].items():
        entry["expected"] = SAMPLE["sources"][name]["expected"]
    for name, entry in found["benchmarks"].items():
        entry["index"] = {
            **entry["index"],
            "expected_images": SAMPLE["benchmarks"][name]["index"]["expected_images"],
        }
    return found


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All archives of the paper profile, as a person would have downloaded them."""
    folder = tmp_path_factory.mktemp("drop")
    for name, entry in PAPER["archives"].items():
        for file in entry["files"] if name != "sam_vit_l" else ():
            published = (
                file["urls"][0].rpartition("/")[2] if "only_named_in" in file else file["name"]
            )
            (folder / name).mkdir(exist_ok=True)
            shutil.copy2(
                fetched(name) / published, folder / name
            )  # made once, for the data tests, too
    return folder


@pytest.fixture
def paper(tmp_path: Path, database: Path, drop: Path) -> Iterator[Path]:
    """A clone after `hqsam profile paper`, the drop folder filled with what a program could have downloaded."""
    root = clone(tmp_path / "clone", "sample")
    shutil.copytree(database, server.home(root))
    done = run(root, "hqsam", "profile", "paper")
    assert done.returncode == 0 and yaml.safe_load((root / "params.yaml").read_text()) == PAPER
    (root / "params.yaml").write_text(yaml.safe_dump(part(small(PAPER)), sort_keys=False))
    (root / "models").mkdir(exist_ok=True)
    shutil.copytree(drop, root / "data" / "drop")
    for name, files in BY_HAND.items():
        for file in files:
            (root / "data" / "drop" / name / file).unlink()
    yield root
    host_client.stop(root)
    server.stop(root)


def index_of(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (root / "data" / "benchmarks" / name / "index.json").read_bytes()
    )
    return found


def test_the_profile_and_one_command_give_shards_without_the_sets_that_nobody_can_download(
    paper: Path, drop: Path
) -> None:
    beforehand = run(paper, "hqsam", "doctor").stdout
    assert (
        "uvo: without uvo_videos_sparse_frames.zip, UVO_frame_val.json, "
        "uvo_instances_results.json what needs them is left" in beforehand
    )
    # The overlap gate is the last stage that asks which sets are there; test_e2e.py has the others.
    done = run(paper, "dvc", "repro", "shard" if FULL else "overlap", timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    # Shown: licences, and for each file that is missing where it comes from and where it goes.
    assert "dis5k: licence: DIS5K terms of use" in done.stdout
    assert "sign in at https://youtube-vos.org/dataset/vis/" in done.stdout
    assert (
        f"{paper}/data/drop/uvo/\n        uvo_videos_sparse_frames.zip\n        UVO_frame_val.json"
        in done.stdout
    )
    # Every training image is there, and the gates say what they did not see.
    overlap = json.loads((paper / "data" / "overlap" / "overlap.json").read_bytes())
    profile = part(small(PAPER))
    wanted = sum(entry["expected"] for entry in profile["sources"].values())
    assert overlap["n_train"] == wanted
    assert overlap["not_compared"] == ["hq_ytvis", "uvo"]
    assert set(profile["benchmarks"]) - {"hq_ytvis", "uvo"} <= set(overlap["by_benchmark"])
    # COCO's images take part in the overlap gate although there are no boxes to predict from.
    assert overlap["by_benchmark"]["coco"] and overlap["by_benchmark"]["big"]
    assert index_of(paper, "coco")["prompt_sets"] == [] and index_of(paper, "big")[
        "prompt_sets"
    ] == ["gt_box"]
    assert "nothing to do" not in done.stdout.lower()
    # what a person brings later runs half of the stages again; test_own_data.py has the small case
    if not FULL:
        return
    shards = json.loads((paper / "data" / "shards" / "index.json").read_bytes())
    assert shards["n_samples"] == wanted - overlap["n_excluded"]
    # What a person brings later comes in by force with DVC, by itself with `hqsam repro`.
    assert "up to date" in run(paper, "dvc", "repro", "shard").stdout
    shutil.copytree(drop / "uvo", paper / "data" / "drop" / "uvo", dirs_exist_ok=True)
    done = run(paper, "dvc", "repro", "--force", "fetch@uvo")
    assert done.returncode == 0, done.stdout[-2000:]
    done = run(paper, "hqsam", "repro", "shard", "--from-dir", str(drop), timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (
        index_of(paper, "uvo")["n_images"]
        == SAMPLE["benchmarks"]["uvo"]["index"]["expected_images"]
    )
    assert index_of(paper, "coco")["n_prompts"]["detector_box"] > 0
    assert index_of(paper, "big")["prompt_sets"] == ["coarse_mask", "gt_box"]
    assert "not_compared" not in json.loads(
        (paper / "data" / "overlap" / "overlap.json").read_bytes()
    )


@pytest.mark.parametrize("name", overlays.names(REPOSITORY))
def test_overlays_make_valid_profiles(name: str, tmp_path: Path) -> None:
    assert (
        Params.of(yaml.safe_load(overlays.compose(REPOSITORY, name)), tmp_path / name).check() > 30
    )
    assert overlays.compose(REPOSITORY, name) == overlays.compose(REPOSITORY, name)


def test_an_overlay_without_a_base_is_named(tmp_path: Path) -> None:
    (tmp_path / overlays.FOLDER).mkdir(parents=True)
    (tmp_path / overlays.FOLDER / "mine.yaml").write_text("base: nothing\n")
    with pytest.raises(UserError, match=r"(?s)no ready profile.*mine\.yaml.*base"):
        overlays.compose(tmp_path, "mine")


# ---- the six sources from their own authors ----


def member(repack: zipfile.ZipFile, folder: str) -> dict[str, bytes]:
    """File name to bytes of one folder of a repack."""
    found = [
        name
        for name in repack.namelist()
        if f"/{name}".rpartition("/")[0].endswith(folder) and name[-1] != "/"
    ]
    return {name.rpartition("/")[2]: repack.read(name) for name in found}


def packed(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as target:
        for name, data in files.items():
            target.writestr(name, data)


def split(files: dict[str, bytes], images: str, masks: str) -> dict[str, bytes]:
    """Pairs of one flat folder in two folders."""
    return {
        f"{masks if name.endswith('.png') else images}/{name}": data for name, data in files.items()
    }


def fss_classes(files: dict[str, bytes]) -> dict[str, bytes]:
    """`abe's_flyingfish_3.jpg` as `fewshot_data/fewshot_data/abe's_flyingfish/3.jpg`."""
    return {
        "fewshot_data/fewshot_data/{}/{}".format(*name.rsplit("_", 1)): data
        for name, data in files.items()
    }


def originals(drop: Path, out: Path) -> None:
    """The repacked sources in the archives of their own authors."""
    repack = zipfile.ZipFile(drop / "cascade_psp" / "cascade_psp.zip")
    thin = zipfile.ZipFile(drop / "thin_object_detection" / "thin_object_detection.zip")
    shutil.copytree(drop / "dis5k", out / "dis5k_original")
    train, test = (
        {**member(thin, f"images_{s}"), **member(thin, f"masks_{s}")} for s in ("train", "test")
    )
    files = split({**train, **test}, "ThinObject5K/images", "ThinObject5K/masks")
    for name, some in (("train", train), ("test", test)):
        lines = sorted(file for file in some if file.endswith(".png"))
        files[f"ThinObject5K/list/{name}.txt"] = ("\n".join(lines) + "\n").encode()
    packed(out / "thinobject_original" / "ThinObject5K.zip", files)
    packed(out / "fss_original" / "fewshot_data.zip", fss_classes(member(repack, "/fss_all")))
    both = split(member(repack, "/ecssd"), "images", "ground_truth_mask")
    for name in ("images", "ground_truth_mask"):
        packed(
            out / "ecssd_original" / f"{name}.zip",
            {k: v for k, v in both.items() if k.startswith(f"{name}/")},
        )
    msra = split(member(repack, "/MSRA_10K"), "MSRA10K_Imgs_GT/Imgs", "MSRA10K_Imgs_GT/Imgs")
    packed(out / "msra10k_original" / "MSRA10K_Imgs_GT.zip", msra)
    for name in ("DUTS-TR", "DUTS-TE"):
        pairs = split(member(repack, f"/{name}"), f"{name}/{name}-Image", f"{name}/{name}-Mask")
        packed(out / "duts_original" / f"{name}.zip", pairs)


@pytest.mark.parametrize("name", list(ORIGINALS["sources"]))
def test_a_source_from_its_own_authors_gives_the_samples_of_the_repack(
    name: str, drop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals(drop, tmp_path / "drop")
    found = []
    for profile, folder in ((PAPER, drop), (ORIGINALS, tmp_path / "drop")):
        monkeypatch.setenv(DROP_FOLDER_VARIABLE, str(folder))
        entry = small(profile)["sources"][name]
        spec = ArchiveSpec.model_validate(small(profile)["archives"][entry["archive"]])
        place = tmp_path / "archives" / entry["archive"]
        fetch(spec, place, progress=quiet)
        root = extracted(place, tmp_path / "extracted")
        out = tmp_path / "samples" / entry["archive"]
        options = SourceOptions.model_validate(entry)
        found.append(
            normalise(name, root=root, out=out, options=options, progress=quiet, workers=1)
        )
    assert found[0]["n_samples"] == found[1]["n_samples"] == SAMPLE["sources"][name]["expected"]
    assert found[0]["rejects_by_reason"] == found[1]["rejects_by_reason"]


def test_doctor_names_the_downloads_without_a_digest(tmp_path: Path) -> None:
    params = Params.load(REPOSITORY / "configs" / "paper.yaml")
    specs = {name: params.archive(name) for name in params.archives}
    [found] = doctor._digests(tmp_path, specs)
    assert found.level == "warn" and "without encryption: lvis/train2017.tar" in found.detail
    assert (
        "big/BIG.zip" in found.detail
        and "dis5k" not in found.detail
        and "val2017" not in found.detail
    )
    names = re.findall(r"(\w+/[\w.-]+)[,\s]", found.detail.partition(" will be")[0] + " ")
    first_use.add(tmp_path / first_use.FILE, dict.fromkeys(names, "0" * 64))
    assert list(doctor._digests(tmp_path, specs)) == []

    record = {"files": [{"name": "BIG.zip", "sha256": "1" * 64}]}
    atomic.write_json(tmp_path / "data/archives/big/fetch.json", record)
    [found] = doctor._digests(tmp_path, specs)
    assert (
        found.level == "fail"
        and "data/archives/big/BIG.zip has another digest than in" in found.detail
    )
