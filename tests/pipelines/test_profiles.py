"""What a switch of profiles may take away, and what it must not lose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from hqsam_base.errors import UserError
from hqsam_base.locks import locked
from hqsam_pipelines.config import overlays, profiles
from tests import REPOSITORY
from tests.pipelines.working_copy import bare_repository, dvc_repository, git, run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository on the profile `sample`, whose cache holds the samples of `ecssd` and `duts`."""
    root = bare_repository(tmp_path_factory.mktemp("project") / "a b")
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    (root / "params.yaml").write_bytes((root / "configs" / "sample.yaml").read_bytes())
    git(root, "init", "-q")
    assert run(root, "dvc", "init", "-q").returncode == 0
    for name in ("ecssd", "duts"):
        write(root / "data" / "samples" / name / "samples-00000.tar", name)
        done = run(root, "dvc", "add", "-q", f"data/samples/{name}")
        assert done.returncode == 0, done.stderr
        (root / "data" / "samples" / f"{name}.dvc").unlink()
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def switch(root: Path, name: str) -> tuple[list[str], list[str]]:
    profiles.switch(root, name, force=True)
    return list(profiles.prune(root)), list(profiles.restore(root))


def test_only_what_the_cache_holds_is_removed_and_the_rest_comes_back(project: Path) -> None:
    edited = project / "data" / "samples" / "duts" / "samples-00000.tar"
    edited.unlink()  # a link into the cache
    edited.write_text("no longer what the cache holds")
    write(project / "data" / "archives" / "big" / "BIG.zip", "half of a download")
    write(project / "data" / "samples" / "dis5k" / "samples-00000.tar", "of both profiles")
    write(project / "reports" / "metrics" / "big-nano.json", "{}")
    write(project / profiles.ASIDE / "reports" / "metrics" / "big-nano.json", "older ones")
    taken, back = switch(project, "tiny")
    assert [line.split(" (")[0] for line in taken] == [
        "put aside data/archives/big",
        "put aside data/samples/duts",
        "removed data/samples/ecssd",
        "put aside reports/metrics/big-nano.json",
    ]
    assert back == [] and profiles.leftovers(project) == []
    assert sorted(p.name for p in (project / "data" / "samples").iterdir() if p.is_dir()) == [
        "dis5k"
    ]
    taken, back = switch(project, "sample")
    assert taken == []
    names = ("data/archives/big", "data/samples/duts", "reports/metrics/big-nano.json")
    assert back == [f"restored {name} (from .hqsam/aside)" for name in names]
    assert (project / "reports" / "metrics" / "big-nano.json").read_text() == "{}"
    assert (project / "data" / "archives" / "big" / "BIG.zip").read_text() == "half of a download"
    assert edited.read_text() == "no longer what the cache holds"


def test_weights_of_the_user_stay(project: Path) -> None:
    """They lie where models lie; what the cure of a stage's refusal takes away must not be the run's own checkpoint."""
    write(project / "models" / "sam_own.pth", "weights")
    write(project / "models" / "own_base" / "model.safetensors", "weights")
    write(project / "models" / "of_another_run" / "last.pt", "an unfinished training")
    text = (project / "configs" / "sample.yaml").read_text()
    old = "checkpoint: hqsam/model/backbones/nano.safetensors"
    assert old in text
    (project / "params.yaml").write_text(
        text.replace(old, "checkpoint: models/own_base/model.safetensors")
    )
    assert profiles.leftovers(project) == [Path("models/of_another_run")]
    assert len(list(profiles.prune(project))) == 1
    assert (project / "models" / "sam_own.pth").exists()
    assert (project / "models" / "own_base" / "model.safetensors").exists()
    assert (project / profiles.ASIDE / "models" / "of_another_run" / "last.pt").exists()
    write(project / "models" / "of_another_run" / "last.pt", "another one")
    with pytest.raises(UserError, match="there is one already"):
        list(profiles.prune(project))
    assert (project / "models" / "of_another_run" / "last.pt").read_text() == "another one"


def test_no_switch_under_a_running_stage(project: Path) -> None:
    (project / "params.yaml").write_bytes((project / "configs" / "sample.yaml").read_bytes())
    folder = project / profiles.STAGE_LOCKS
    folder.mkdir(exist_ok=True)
    write(project / "data" / "scores" / "coco-another" / "scores.json", "{}")
    with locked(folder / "train-nano.lock"):
        for call in (
            lambda: profiles.switch(project, "tiny"),
            lambda: list(profiles.prune(project)),
        ):
            with pytest.raises(UserError, match="a stage is running: train-nano"):
                call()
    assert (project / "data" / "scores" / "coco-another").exists()
    assert profiles.switch(project, "tiny")


def test_an_overlay_with_other_sources_trains_models_of_other_names() -> None:
    """A model's name is its entry in dvc.lock: of two trainings of one name, only the last could be brought back."""
    for name in overlays.names(REPOSITORY):
        layered = yaml.safe_load(overlays.compose(REPOSITORY, name))
        base = yaml.safe_load((REPOSITORY / "configs" / "paper.yaml").read_text())
        if layered["sources"] != base["sources"]:
            assert not set(layered["models"]) & set(base["models"]), name


TWO_PROFILES = """
stages:
  train:
    cmd: echo train >> ran && mkdir -p models/nano && cp params.yaml models/nano/weights
    params: [profile]
    outs:
      - models/nano:
          persist: true
  score:
    cmd: echo score >> ran && mkdir -p reports/metrics && cp models/nano/weights reports/metrics/dis_vd-nano.json
    deps: [models/nano]
    outs:
      - reports/metrics/dis_vd-nano.json:
          cache: false
"""


def test_profiles_that_share_a_models_name_keep_their_runs(tmp_path: Path, database: Path) -> None:
    """Switched away and back: nothing runs again, and each has its own weights, metrics and dvc.lock."""
    root = dvc_repository(tmp_path / "two", TWO_PROFILES, database)
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    expected = ["train", "score"]
    for name, runs in (("tiny", 1), ("sample", 2), ("tiny", 2)):
        switch(root, name)
        done = run(root, "dvc", "repro")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (root / "ran").read_text().split() == expected * runs, f"{name}: {done.stdout}"
        for file in ("models/nano/weights", "reports/metrics/dis_vd-nano.json"):
            assert (root / file).read_bytes() == (root / "configs" / f"{name}.yaml").read_bytes()
        assert f"profile: {name}" in (root / "dvc.lock").read_text()


def test_a_file_whose_name_is_a_path_is_no_profile(project: Path) -> None:
    """`...yaml` has the stem `..`: what is kept for a profile of that name would replace .hqsam itself."""
    for folder in (project / "configs", project / overlays.FOLDER):
        shutil.copy(project / "params.yaml", folder / "...yaml")
    names = [name for name, _ in profiles.listing(project)]
    for folder in (project / "configs", project / overlays.FOLDER):
        (folder / "...yaml").unlink()
    assert names and ".." not in names
