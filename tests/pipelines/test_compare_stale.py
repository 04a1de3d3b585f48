"""`hqsam compare` where metrics, tables, parameters and dvc.lock are not of one run: never a verdict from what does not belong together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from hqsam_pipelines import cli
from hqsam_pipelines.compare.answer import answer
from hqsam_pipelines.compare.comparison import compare
from hqsam_pipelines.compare.stale import _same
from tests.pipelines.report_repo import HQ4
from tests.pipelines.test_compare import by_row, commit, dvc, git, make_repository, write_run

RUNS = (*HQ4, "coco", "davis")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tags: `good`, then `reports-only`, a worse run of which only reports/ was committed, then `whole` with its dvc.lock."""
    root = tmp_path_factory.mktemp("stale") / "repo"
    make_repository(root)
    write_run(root, strength=0.03)
    commit(root, "good")
    git(root, "tag", "good")
    write_run(root, strength=0.12)
    dvc(root, "commit", "--force", "--quiet")
    git(root, "add", "reports")
    git(root, "commit", "--quiet", "-m", "reports only")
    git(root, "tag", "reports-only")
    git(root, "add", "dvc.lock")
    git(root, "commit", "--quiet", "-m", "whole")
    git(root, "tag", "whole")
    return root


@pytest.fixture
def repository(origin: Path, tmp_path: Path) -> Path:
    shutil.copytree(origin, tmp_path / "repo", symlinks=True)
    return tmp_path / "repo"


def test_reports_without_their_lock_give_no_interval_of_another_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(repository, "good", "reports-only")
    row = by_row(found)["dis_vd", "hq_token", "mBIoU"]
    assert row.difference < -5 and row.interval is None and row.verdict == "not tested"
    assert answer(found).status == 3
    (note,) = found.notes
    assert "are of another run than its metrics: commit dvc.lock together with reports/" in note
    assert all(name in note for name in RUNS)
    assert (
        by_row(compare(repository, "good", "whole"))["dis_vd", "hq_token", "mBIoU"].verdict
        == "worse"
    )
    monkeypatch.chdir(repository)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.run(["compare", "good", "reports-only"]) == 3
    assert "because there are no intervals: mean of four mBIoU" in capsys.readouterr().out


def test_after_a_checkout_of_git_alone_the_tables_come_from_the_cache(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "good")  # data/ is still that of `whole`
    found = compare(repository, "whole")
    assert by_row(found)["dis_vd", "hq_token", "mBIoU"].verdict == "better"
    assert {c.verdict for c in compare(repository, "good").changes} == {"cannot move", "not tested"}
    git(repository, "checkout", "--quiet", "whole")
    git(repository, "checkout", "--quiet", "good", "--", "reports")
    found = compare(repository, "good")
    assert answer(found).status == 3 and any(
        "another run than its metrics" in note for note in found.notes
    )


def test_a_run_without_dvc_is_taken_as_it_lies_on_disk(repository: Path) -> None:
    write_run(repository, strength=0.2)
    found = compare(repository, "whole")
    row = by_row(found)["dis_vd", "hq_token", "mBIoU"]
    assert row.interval is not None and row.difference == pytest.approx(row.interval.mean, abs=1e-9)
    (note,) = found.notes
    assert "may be of an earlier state: score-" in note and "run `dvc repro` first" in note


def test_what_was_not_pulled_yet_is_not_out_of_date(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(repository), str(tmp_path / "clone"))
    (note,) = compare(tmp_path / "clone", "HEAD").notes[-1:]
    assert "run `dvc repro`" in note and "dvc fetch" not in note
    assert not any("earlier state" in note for note in compare(tmp_path / "clone", "HEAD").notes)


def test_parameters_that_changed_after_the_run_are_named(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "whole")
    assert compare(repository, "whole").notes == ()
    lock = yaml.safe_load((repository / "dvc.lock").read_text())
    lock["stages"]["train@nano"] = {
        "cmd": "x",
        "params": {"params.yaml": {"models.nano": {"lr": "1e-05"}, "seed": 0}},
    }
    lock["stages"]["train@gone"] = {
        "cmd": "x",
        "params": {"params.yaml": {"profile": "another", "models.gone": {}}},
    }
    (repository / "dvc.lock").write_text(yaml.safe_dump(lock))
    params = yaml.safe_load((repository / "params.yaml").read_text())
    params["models"]["nano"] = {"lr": 0.00001}
    (repository / "params.yaml").write_text(yaml.safe_dump(params))
    assert compare(repository, "whole").notes == ()
    (repository / "params.yaml").write_text(yaml.safe_dump(params | {"seed": 5}))
    (note,) = compare(repository, "whole").notes
    assert note.startswith(
        "the metrics at workspace were made with other values of seed than its params.yaml has"
    )
    git(repository, "commit", "--quiet", "-am", "edited")
    (note,) = compare(repository, "whole", "HEAD").notes
    assert note.startswith("the metrics at HEAD") and note.endswith("and commit what it changes")


def test_equality_of_yaml_values() -> None:
    for left, right in (
        (1e-05, "1e-05"),
        ([1, "a"], [1.0, "a"]),
        ({"a": None}, {"a": None}),
        ("0.10", "0.1"),
    ):
        assert _same(left, right)
    for left, right in (
        (1, 2),
        ("a", "b"),
        ({"a": 1}, {"b": 1}),
        ([1], [1, 1]),
        (None, "0"),
        (True, "yes"),
    ):
        assert not _same(left, right)
