"""`hqsam history` on a real git repository whose reports are of several ages."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines import cli
from hqsam_pipelines.compare.history import OVERVIEW, history, to_csv, to_html
from tests.pipelines.test_compare import git

ROW = "HQ4-mean,gt_box,mBIoU,nano,hq_token,30.0000,{value},{delta},{low},{high}"
OLD = "benchmark,prompt_set,metric,model,hq_output,sam,hq_sam,delta,ci_low,ci_high"
SMALL = ROW.format(value="1", delta="1", low="1", high="1")
SUBJECT = "a <script>alert(1)</script> | [x](y)"


def reports(root: Path) -> list[str]:
    """Five commits: an old report, one without a report, a new one, one that is no table, one of a newer format."""
    root.mkdir()
    git(root, "init", "--quiet")
    path = root / OVERVIEW
    path.parent.mkdir(parents=True)
    first = ROW.format(value="50.0000", delta="20.0000", low="18.0000", high="22.0000")
    second = ROW.format(value="52.5000", delta="22.5000", low="", high="")
    for content, subject in (
        (f"{OLD}\n{first}\n", "old"),
        (None, "other"),
        (f"{OLD},p,verdict\n{second},0.01,better\nCOCO,detector_box,AP,,,1,nan,,,,,\n", SUBJECT),
        ("a,b\n1,2\n", "no table"),
        (f"new,{OLD}\n9,{first}\n", "newer"),
    ):
        if content is not None:
            path.write_text(content)
        git(root, "add", ".")
        git(root, "commit", "--quiet", "--allow-empty", "-m", subject)
    return git(root, "log", "--reverse", "--format=%H").splitlines()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("history") / "repo"
    return root, reports(root)


def test_every_commit_with_a_report_is_a_line(repository: tuple[Path, list[str]]) -> None:
    root, commits = repository
    found = history(root)
    assert [entry.sha for entry in found.entries] == [commits[0], commits[2], commits[4]]
    lines = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [(line["commit"], line["hq_sam"], line["verdict"]) for line in lines] == [
        (commits[0], "50.00", ""),
        (commits[2], "52.50", "better"),
        (commits[4], "50.00", ""),
    ]
    assert found.entries[0].points[found.rows[0]].ends == (48.0, 52.0)
    assert found.notes == (
        f"{commits[3][:9]} is left out: its table lacks the columns benchmark, prompt_set, metric, "
        "hq_sam",
    )
    since = history(root, since=commits[2], metrics=["mBIoU"])
    assert [entry.sha for entry in since.entries] == [commits[2], commits[4]]
    page = to_html(found)
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page and "52.5" in page


@pytest.mark.parametrize("benchmark", ["a\rb", "a" * 200_000], ids=["line end", "long"])
def test_a_table_that_is_no_csv_is_a_note(tmp_path: Path, benchmark: str) -> None:
    write_report(tmp_path, SMALL, "good")
    write_report(tmp_path, f"{benchmark},gt_box,mIoU,,,1,2,,,", "strange")
    found = history(tmp_path)
    assert len(found.entries) == 1 and "its table is no CSV" in found.notes[0]


def test_a_subject_forges_no_commit_and_a_number_breaks_no_chart(tmp_path: Path) -> None:
    row = ROW.format(value="1e308", delta="-1e308", low="1e308", high="-1e308")
    write_report(tmp_path, row.replace("mBIoU", "mIoU") + "\n" + SMALL, "first")
    sha = git(tmp_path, "rev-parse", "HEAD").strip()
    write_report(tmp_path, SMALL, f"second\x85{sha}\x1f2001-01-01\x1fforged")
    found = history(tmp_path)
    assert len({entry.sha for entry in found.entries}) == len(found.entries) == 2
    assert len(found.rows) == 1 and "inf" not in to_csv(found) and to_html(found)


def write_report(root: Path, rows: str, subject: str) -> None:
    if not (root / ".git").exists():
        git(root, "init", "--quiet")
    (root / OVERVIEW).parent.mkdir(parents=True, exist_ok=True)
    (root / OVERVIEW).write_text(f"{OLD}\n{rows}\n", newline="")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", subject)


def test_command_prints_and_writes(
    repository: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, commits = repository
    for name in ("dvc.yaml", "params.yaml"):
        (root / name).write_text("{}\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "80")
    page = tmp_path / "h.html"
    assert cli.run(["history", "--html", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [commits[4][:9], lines[1].split()[1], "50.0", "[48.0,", "52.0]"]
    assert lines[2].split()[2:] == ["52.5"] and page.stat().st_size > 1000
    assert cli.run(["history", "--md", "-"]) == 0
    assert r"a \<script\>alert(1)\</script\> \| \[x\](y) |" in capsys.readouterr().out
    assert cli.run(["history", "--metric", "mBIou"]) == 1
    assert "did you mean mBIoU?" in capsys.readouterr().err


def test_a_metric_of_strangers_is_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(tmp_path, SMALL.replace("mBIoU", "[/red] [b]x"), "strange")
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    assert cli.run(["history"]) == 0
    assert "[/red] [b]x" in capsys.readouterr().out


def test_without_a_report_the_cure_is_named(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "nothing")
    with pytest.raises(UserError, match="no commit has a report"):
        history(tmp_path)
    with pytest.raises(UserError, match="no such revision"):
        history(tmp_path, since="gone")
