"""Models and predictions outside the repository: every entry point checks them first, and DVC sees when they change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from hqsam_base.errors import UserError
from hqsam_pipelines.config import inputs, preflight
from tests.pipelines.test_preflight import ENTRIES
from tests.pipelines.working_copy import clone, run


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = clone(tmp_path_factory.mktemp("inputs") / "checkout")
    assert run(root, "dvc", "init", "-q", "-f").returncode == 0
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A model folder as far as it is looked at before it is opened, and results of another program."""
    (tmp_path / "sam2").mkdir()
    for name in ("config.json", "processor_config.json"):
        (tmp_path / "sam2" / name).write_text('{"model_type": "sam2"}')
    (tmp_path / "sam2" / "model.safetensors").write_bytes(b"weights")
    row = {"image_id": 1, "category_id": 1, "segmentation": {}, "score": 0.5}
    (tmp_path / "theirs.json").write_text(json.dumps([row]))
    return tmp_path


def use(checkout: Path, outside: Path, **more: Any) -> dict[str, Any]:
    """Put the systems into the profile."""
    params = yaml.safe_load((checkout / "configs" / "tiny.yaml").read_text())
    params["systems"] = {
        "sam_hq": {"kind": "sam_hq"},
        "sam2": {"kind": "transformers", "model": str(outside / "sam2")},
        "theirs": {
            "kind": "predictions",
            "path": str(outside / "theirs.json"),
            "benchmarks": ["coco"],
        },
        **more,
    }
    (checkout / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return params


def test_plain_dvc_sees_a_changed_file_outside_the_repository(
    checkout: Path, outside: Path
) -> None:
    use(checkout, outside)

    def repro() -> dict[str, Any]:
        done = run(checkout, "dvc", "repro", "code", HQSAM_HOST="0")
        assert done.returncode == 0, done.stdout + done.stderr
        folder = checkout / inputs.OUT
        return {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}

    first = repro()
    assert first["coco"] == {} and first["coco-nano"].keys() == {"sam2", "theirs"}
    others = {name for name in first if name.endswith("-nano")} - {"coco-nano"}
    assert others and all(first[name].keys() == {"sam2"} for name in others)
    for name in ("theirs.json", "sam2/model.safetensors"):
        (outside / name).write_bytes(b"[]")
    second = repro()
    changed = {
        name: [k for k in first[name] if first[name][k] != second[name][k]] for name in first
    }
    assert changed == {name: sorted(of) for name, of in first.items()}
    # Without the section no link is left, even where the files are gone.
    shutil.rmtree(outside / "sam2")
    shutil.copy(checkout / "configs" / "tiny.yaml", checkout / "params.yaml")
    preflight.pipeline(checkout)
    assert [path.name for path in (checkout / inputs.LINKS).iterdir()] == ["README.md"]
    assert set(map(str, repro().values())) == {"{}"}


def test_the_stages_that_read_them_depend_on_the_digests(checkout: Path) -> None:
    stages = yaml.safe_load((checkout / "dvc.yaml").read_text())["stages"]
    assert "data/inputs/${key}.json" in stages["index"]["do"]["deps"]
    assert "data/inputs/${item.benchmark}-${item.model}.json" in stages["predict"]["deps"]


@pytest.mark.parametrize("entry", ["dvc repro", "hqsam repro", "one stage"])
def test_every_entry_point_looks_at_them_first(checkout: Path, outside: Path, entry: str) -> None:
    use(checkout, outside)
    (outside / "sam2" / "processor_config.json").unlink()
    (checkout / "dvc.lock").write_text("schema: '2.0'\n")
    done = run(checkout, *ENTRIES[entry], HQSAM_HOST="0")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "the model folder has no processor" in said, said
    assert "systems.sam2.model" in said and "cure: copy processor_config.json" in said
    (checkout / "dvc.lock").unlink()
    assert not (checkout / "data" / "archives").exists()


def bad_family(outside: Path) -> None:
    (outside / "sam2" / "config.json").write_text('{"model_type": "bert"}')


def without_score(outside: Path) -> None:
    row = {"image_id": 1, "category_id": 1, "segmentation": {}}
    (outside / "theirs.json").write_text(json.dumps([row]))


def a_folder(outside: Path) -> None:
    (outside / "theirs.json").unlink()
    (outside / "theirs.json").mkdir()


@pytest.mark.parametrize(
    ("spoil", "key", "said"),
    [
        (bad_family, "systems.sam2.model", "sam2, sam2_video, edgetam"),
        (without_score, "systems.theirs.path", "no `score` that is a finite number"),
        (a_folder, "systems.theirs.path", "the benchmark is of kind coco"),
        (lambda outside: (outside / "theirs.json").unlink(), "systems.theirs.path", "no such"),
    ],
)
def test_what_is_wrong_is_one_message_with_file_key_and_cure(
    checkout: Path, outside: Path, spoil: Any, key: str, said: str
) -> None:
    use(checkout, outside)
    spoil(outside)
    for anew in (True, False):
        with pytest.raises(UserError, match=said) as error:
            preflight.load(checkout, anew=anew)
        assert error.value.key == key and error.value.file and error.value.cure


def test_systems_of_params_are_checked_as_a_whole(checkout: Path, outside: Path) -> None:
    use(checkout, outside, sam={"kind": "transformers", "model": str(outside / "sam2")})
    with pytest.raises(UserError, match="the system sam is there twice") as error:
        preflight.load(checkout)
    assert error.value.key == "systems.sam"
    params = use(checkout, outside)
    params["benchmarks"]["dis_vd"]["index"]["prompt_sets"] = ["tracker_box"]
    (checkout / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with pytest.raises(UserError, match="tracker_box") as error:
        preflight.load(checkout)
    assert error.value.key and error.value.file and error.value.cure
    use(checkout, outside, more={"kind": "predictions", "path": "x", "benchmarks": ["koko"]})
    with pytest.raises(UserError, match="koko") as error:
        preflight.load(checkout)
    assert error.value.key == "systems.more.benchmarks"
