"""`hqsam repro --accept-code`: a finished run survives a rearrangement of the code, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines.runner.accept import accept_code
from hqsam_pipelines.runner.codegraph import write_digests
from tests.pipelines.working_copy import git, run

PIPELINE = """
stages:
  one:
    cmd: cp input one
    deps: [data/code/one.json, input]
    outs: [one]
  two:
    cmd: cp one two
    deps: [data/code/two.json, one]
    params: [size]
    outs: [two]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of two stages that have run, whose code was then edited."""
    stages = tmp_path / "pipelines" / "hqsam_pipelines" / "stages"
    stages.mkdir(parents=True)
    for name in ("one", "two"):
        (stages / f"{name}.py").write_text(f"{name} = 1\n")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text("size: 1\n")
    (tmp_path / "input").write_text("1")
    git(tmp_path, "init", "-q")
    write_digests(tmp_path, tmp_path / "data" / "code")
    for words in (["init", "-q"], ["repro", "-q"]):
        assert run(tmp_path, "dvc", *words).returncode == 0
    for name in ("one", "two"):
        (stages / f"{name}.py").write_text(f"{name} = 2\n")
    return tmp_path


def test_changed_code_alone_is_accepted(checkout: Path) -> None:
    found = accept_code(checkout)
    assert (found.accepted, found.left) == (["one", "two"], {})
    assert "up to date" in run(checkout, "dvc", "status").stdout
    (checkout / "pipelines" / "hqsam_pipelines" / "stages" / "one.py").write_text("one = 3\n")
    write_digests(checkout, checkout / "data" / "code")
    assert "one.json" in run(checkout, "dvc", "status").stdout, "the next edit counts again"


def test_the_stage_of_the_digests_may_have_new_parameters(checkout: Path) -> None:
    """It reads all of params.yaml, and its file of dvc.yaml may be new to dvc.lock: no reason to call it left."""
    (checkout / "kept").mkdir()
    write_digests(checkout, checkout / "data" / "code")
    for path in (checkout / "data" / "code").iterdir():
        (checkout / "kept" / path.name).write_bytes(path.read_bytes())
    code = (
        "  code:\n    cmd: mkdir -p data/code && cp kept/* data/code\n    deps: [params.yaml]\n   "
        " outs: [data/code]\n"
    )
    (checkout / "dvc.yaml").write_text(PIPELINE + code)
    assert run(checkout, "dvc", "repro", "-q").returncode == 0
    (checkout / "params.yaml").write_text("size: 1\nmore: 1\n")
    found = accept_code(checkout)
    assert (found.accepted, found.left) == (["code"], {})


def test_a_command_that_no_longer_repeats_its_own_names_is_accepted(checkout: Path) -> None:
    new = PIPELINE + (
        "  three:\n    foreach: {a_b: 1, c: 1}\n    do:\n      cmd: touch three-${key}\n      "
        "outs: ['three-${key}']\n"
    )
    (checkout / "dvc.yaml").write_text(new.replace("touch three-${key}", "touch three-${key} a_b"))
    assert run(checkout, "dvc", "repro", "-q").returncode == 0
    (checkout / "dvc.yaml").write_text(new)
    found = accept_code(checkout)
    assert (found.accepted, found.left) == (
        ["one", "two", "three@a_b"],
        {"three@c": "changed command"},
    )


@pytest.mark.parametrize(
    ("file", "text", "stage", "why"),
    [
        ("input", "2", "one", "input (modified)"),
        ("params.yaml", "size: 2\n", "two", "params.yaml"),
        ("two", "other", "two", "two (modified)"),
        ("dvc.yaml", PIPELINE.replace("cp one two", "cp -f one two"), "two", "changed command"),
    ],
)
def test_what_differs_in_more_than_code_runs_again(
    checkout: Path, file: str, text: str, stage: str, why: str
) -> None:
    before = (checkout / "dvc.lock").read_text()
    (checkout / file).unlink()  # not through a link into DVC's cache
    (checkout / file).write_text(text)
    found = accept_code(checkout)
    assert found.accepted == [name for name in ("one", "two") if name != stage]
    assert list(found.left) == [stage] and why in found.left[stage]
    assert (checkout / "dvc.lock").read_text() != before
    assert stage in run(checkout, "dvc", "status").stdout


def test_nothing_has_run_yet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing has run yet"):
        accept_code(tmp_path)
