"""Mistakes in params.yaml, and a dvc.yaml that is somebody else's: told by every entry point before anything runs or starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines.config import preflight
from tests.pipelines.working_copy import clone, git, run

MISTAKES = {
    "kind: dust": ("kind: dis5k,", "kind: dust,", "did you mean duts"),
    "epoch: 3": ("  epochs: ", "  epoch: ", "did you mean epochs"),
    "a name": ("  dis_vd:\n", "  dis vd:\n", "bad name 'dis vd'"),
    "a date": ("profile: tiny\n", "profile: 2024-01-01\n", "a date; in quotes it is a text"),
    "a date for a name": ("  dis_vd:\n", "  2024-01-01:\n", "a date; in quotes it is a text"),
    "a value in a late section": ("\noverlap:\n", "\noverlap:\n  sead: 1\n", "unknown key 'sead'"),
}
ENTRIES = {
    "hqsam repro": ("hqsam", "repro", "fetch"),
    "dvc repro": ("dvc", "repro"),
    "one stage": ("python", "-m", "hqsam_pipelines.stages.fetch", "dis5k"),
    "refine": ("hqsam", "refine", "dis_vd", "nano", "--refiner", "grabcut"),
    "make demo": ("python", "-m", "hqsam_pipelines.runner.demo"),
    "accept": ("hqsam", "repro", "--accept-code"),
    "a deployed flow": (
        "python",
        "-c",
        "from hqsam_pipelines.reproduce import reproduce; reproduce.fn()",
    ),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("preflight") / "checkout")


def spoil(root: Path, mistake: str) -> str:
    """Put one mistake into the checkout's params.yaml; what must be said about it."""
    old, new, said = MISTAKES[mistake]
    git(root, "checkout", "-q", "params.yaml")
    text = (root / "params.yaml").read_text()
    assert old in text
    (root / "params.yaml").write_text(text.replace(old, new, 1))
    return said


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_point_checks_all_of_params_before_it_runs_or_starts_anything(
    checkout: Path, entry: str
) -> None:
    said = spoil(checkout, "epoch: 3")
    (checkout / "dvc.lock").write_text("schema: '2.0'\n")
    done = run(checkout, *ENTRIES[entry], HQSAM_HOST="0")
    assert done.returncode != 0
    assert said in done.stdout + done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr or entry == "a deployed flow"
    (checkout / "dvc.lock").unlink()
    assert not (checkout / "data" / "archives").exists()
    assert not (checkout / ".hqsam" / "server.log").exists(), "a server was started"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_kind_of_mistake_is_found_and_nothing_but_right_files_are_noted(
    checkout: Path, mistake: str
) -> None:
    git(checkout, "checkout", "-q", "params.yaml")
    assert preflight.load(checkout).profile == "tiny"
    said = spoil(checkout, mistake)
    for anew in (True, False):  # the note is of the file before
        with pytest.raises(UserError, match=said):
            preflight.load(checkout, anew=anew)


def test_the_check_needs_no_torch(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "params.yaml")
    program = (
        "import os, sys; from pathlib import Path; from hqsam_pipelines.config import preflight; "
        "given = dict(os.environ); preflight.load(Path('.')); assert os.environ == given; "
        "print(sorted({'torch', 'prefect', 'dvc'} & set(sys.modules)))"
    )
    assert run(checkout, sys.executable, "-c", program).stdout.strip() == "[]"


def test_the_pipeline_of_somebody_elses_repository_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages:\n  x:\n    cmd: touch hacked\n")
    (tmp_path / "params.yaml").write_text("profile: x\n")
    (tmp_path / "below").mkdir()
    for words in (("repro",), ("repro", "--accept-code")):
        done = run(tmp_path / "below", "hqsam", *words, HQSAM_HOST="0")
        assert done.returncode == 1
        assert "not one of HQ-SAM" in done.stderr and "dvc.yaml" in done.stderr, done.stderr
    assert not (tmp_path / "hacked").exists() and not (tmp_path / ".hqsam").exists()
