"""`hqsam compare` on a real git repository with a real DVC cache."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hqsam_base.errors import UserError
from hqsam_metrics.base import Quantity
from hqsam_metrics.masks.iou import boundary_iou
from hqsam_pipelines import cli
from hqsam_pipelines.compare import dvc_cache
from hqsam_pipelines.compare.answer import FOLDED, answer, headline
from hqsam_pipelines.compare.as_json import to_json
from hqsam_pipelines.compare.cells import cells
from hqsam_pipelines.compare.comparison import Comparison, compare
from hqsam_pipelines.compare.gallery import folders, pictures
from hqsam_pipelines.compare.markdown import escaped, to_markdown
from hqsam_pipelines.compare.page import to_html
from hqsam_pipelines.compare.revisions import Repository
from hqsam_pipelines.report.kept_tables import FOLDER, write_instances
from hqsam_pipelines.report.results import Run
from hqsam_pipelines.report.scenes import Pick, SceneReader
from hqsam_pipelines.runner.last_line import last_line
from tests.pipelines.report_repo import HQ4, Repo, digest

ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "DVC_NO_ANALYTICS": "1",
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org",
}


Commits = tuple[Path, str, str]


def run(root: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=root, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def git(root: Path, *arguments: str) -> str:
    return run(root, "git", *arguments)


def dvc(root: Path, *arguments: str) -> str:
    return run(root, sys.executable, "-m", "dvc", *arguments)


def write_run(root: Path, *, strength: float, edit: Any = None) -> None:
    """A run in the working tree, its parameters and its stages."""
    for name in ("data", "models", "reports"):
        shutil.rmtree(root / name, ignore_errors=True)
    repo = Repo(root, strength=strength, images=8)
    if edit is not None:
        edit(repo.params)
    repo.build()
    (root / "params.yaml").write_text(yaml.safe_dump(repo.params), encoding="utf-8")
    stages = {
        f"score-{name}": {
            "cmd": "true",
            "outs": [
                f"data/scores/{name}-nano",
                *(
                    [f"data/benchmarks/{name}", f"data/predictions/{name}-nano"]
                    if name in ("coco", "dis_vd")
                    else []
                ),
                {f"reports/metrics/{name}-nano.json": {"cache": False}},
            ],
        }
        for name in repo.params["benchmarks"]
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")


def commit(root: Path, subject: str) -> str:
    dvc(root, "commit", "--force", "--quiet")
    git(root, "add", "params.yaml", "dvc.yaml", "dvc.lock", "reports", ".gitignore")
    git(root, "commit", "--quiet", "-m", subject)
    return git(root, "rev-parse", "HEAD")


def make_repository(root: Path) -> None:
    root.mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    dvc(root, "init", "--quiet")
    (root / ".gitignore").write_text("/data\n/models\n", encoding="utf-8")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """Two commits: masks with 30 % errors, then with 3 %; the workspace is that of the second."""
    root = tmp_path_factory.mktemp("compare") / "repo"
    make_repository(root)
    write_run(root, strength=0.3)
    first = commit(root, "first run")
    write_instances(root, root.parent / "instances" / first)
    write_run(root, strength=0.03, edit=lambda p: p.update(seed=1))
    second = commit(root, "better head")
    write_instances(root, root.parent / "instances" / second)
    yield root, first, second


BOUNDARY = Quantity("boundary IoU", ("biou",))


def by_row(found: Comparison) -> dict[tuple[str, str, str], Any]:
    return {(c.benchmark, c.system, c.metric): c for c in found.changes}


def test_reads_tables_from_the_cache_and_finds_the_improvement(repository: Commits) -> None:
    root, first, second = repository
    moved = root / "data.away"
    (root / "data").rename(moved)  # only the cache can answer
    try:
        found = compare(root, first, second)
    finally:
        moved.rename(root / "data")
    assert not found.notes
    rows = by_row(found)
    for name in HQ4:
        head, sam = rows[name, "hq_token", "mBIoU"], rows[name, "sam", "mBIoU"]
        assert head.verdict == "better" and head.interval.low > 0 and head.interval.clusters == 8
        assert head.difference == pytest.approx(head.interval.mean, abs=1e-9)
        assert sam.verdict == "cannot move" and sam.difference == 0
    assert rows["HQ4-mean", "hq_token", "mIoU"].verdict == "better"
    assert rows["HQ4-mean", "hq_token", "mIoU"].difference == pytest.approx(
        np.mean([rows[n, "hq_token", "mIoU"].difference for n in HQ4])
    )


def test_values_are_those_of_the_metrics_files(repository: Commits) -> None:
    root, first, second = repository
    found = by_row(compare(root, first, second))
    for sha, side in ((first, "a"), (second, "b")):
        metrics = json.loads(git(root, "show", f"{sha}:reports/metrics/coift-nano.json"))
        for result in metrics["results"]:
            for name, value in result["metrics"].items():
                assert getattr(found["coift", result["system"], name], side) == pytest.approx(
                    100 * value
                )


def test_ap_has_an_interval_of_its_own_beside_that_of_its_instances(repository: Commits) -> None:
    root, first, second = repository
    moved = root / "data.away"
    (root / "data").rename(moved)  # only the cache can answer
    try:
        found = compare(root, first, second)
    finally:
        moved.rename(root / "data")
    assert not found.notes
    rows = by_row(found)
    for metric in ("AP", "AP_B"):
        change = rows["coco", "hq_sum", metric]
        # The interval is built around the same point: both AP were computed again from masks.
        assert change.interval.mean == pytest.approx(change.difference, abs=1e-9)
        assert (
            change.interval.low <= change.difference <= change.interval.high
            and change.interval.clusters == 8
        )
        assert change.headline and change.verdict in ("better", "within noise")
    assert rows["coco", "sam", "AP"].verdict == "cannot move"
    assert rows["coco", "hq_sum", "AP50"].verdict == "not tested"
    assert rows["coco", "hq_sum", "instance IoU"].interval is not None
    assert ("coco", "hq_sum", "APl") not in rows  # null on both sides


def test_scores_without_matches_are_named(repository: Commits) -> None:
    root, first, _ = repository
    file = root / "data/scores/coco-nano/matches.parquet"
    away = file.rename(root / "away.parquet")
    try:
        found = compare(root, first)
    finally:
        away.rename(file)
    assert [
        note for note in found.notes if "coco-nano" in note and "before matches were kept" in note
    ]
    assert by_row(found)["coco", "hq_sum", "AP"].interval is None


def test_same_revision_is_all_zero(repository: Commits) -> None:
    root, _, second = repository
    for other in (second, "workspace"):
        found = compare(root, second, other)
        assert {c.difference for c in found.changes} == {0.0}
        assert {c.verdict for c in found.changes} == {"cannot move", "not tested"}
        assert not found.params and not found.outputs and not found.missing and not found.instances


def test_swapping_the_sides_flips_the_signs(repository: Commits) -> None:
    root, first, second = repository
    forth, back = by_row(compare(root, first, second)), by_row(compare(root, second, first))
    assert forth.keys() == back.keys()
    for row, change in forth.items():
        if change.difference is not None:
            assert change.difference == pytest.approx(-back[row].difference, abs=1e-9)
    assert back["dis_vd", "hq_token", "mBIoU"].verdict == "worse"


def test_says_what_changed_in_the_inputs(repository: Commits) -> None:
    root, first, second = repository
    found = compare(root, first, second)
    assert found.params == (("seed", "0", "1"),)
    assert "data/scores/dis_vd-nano" in found.outputs
    assert [line.split(" ", 1)[1] for line in found.commits] == ["better head"]
    assert found.instances[0].system != "sam"
    assert abs(found.instances[0].b - found.instances[0].a) >= abs(
        found.instances[-1].b - found.instances[-1].a
    )


def test_command_line_says_the_same_in_every_form(
    repository: Commits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, first, second = repository
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "200")
    out, page = tmp_path / "c.json", tmp_path / "c.html"
    for revisions, status, verdict in (
        ([second, first], 1, "B is worse: mean of four mBIoU −"),
        ([first[:10]], 0, "B is better: mean of four mBIoU +"),
    ):
        assert cli.run(["compare", *revisions, "--json", str(out), "--html", str(page)]) == status
        text = capsys.readouterr().out
        sentence = text.splitlines()[0]
        assert sentence.startswith(verdict)
        assert "params seed" in text and "first run" in text and "Hochberg" in text
        content = json.loads(out.read_text())
        assert content["answer"]["sentence"] == sentence
        assert sum(content["answer"]["counts"].values()) == content["answer"]["headline"]
        assert content["answer"]["headline"] == sum(row["headline"] for row in content["rows"])
        html = page.read_text()
        assert "http://" not in html and "https://" not in html and "<svg" in html
        assert f">{sentence}</h1>" in html
    # The last one once more, for these eyes and for a page of Git's.
    assert cli.run(["compare", *revisions, "--md", "-"]) == status
    markdown = capsys.readouterr().out
    assert cli.run(["compare", *revisions, "-q", "--md", str(tmp_path / "c.md")]) == status
    assert (tmp_path / "c.md").read_text() == markdown
    assert capsys.readouterr().out == f"{sentence}\n"
    assert markdown.startswith(f"**{escaped(sentence)}**\n")
    # Every headline row is in the Markdown table or is named among those that did not move.
    shown = sum(line.startswith("| ") for line in markdown.splitlines()) - 2
    assert shown == content["answer"]["headline"] - content["answer"]["counts"]["cannot move"]


@pytest.mark.parametrize("width", [200, 60, 24])
def test_no_number_is_cut_at_any_width(
    repository: Commits,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, first, second = repository
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", str(width))
    found = compare(root, first, second)
    assert cli.run(["compare", first, second]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = lines[: next(i for i, line in enumerate(lines) if line.startswith("--all"))]
    assert all(len(line) <= width for line in shown)
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    for row in headline(found):
        assert row.verdict in FOLDED or cells(row)["interval"] in text
    if width >= 80:
        assert lines[0] == answer(found).sentence(width=width)


def test_only_and_top_restrict_the_rows_and_the_counts(
    repository: Commits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, first, second = repository
    monkeypatch.chdir(root)
    assert cli.run(["compare", first, second, "-q", "--only", "coift", "--only", "mBIoU"]) == 0
    assert "COIFT mBIoU" in (said := capsys.readouterr().out)
    assert "1 of 1 headline row better, 0 worse, 0 within noise" in said
    assert cli.run(["compare", first, second, "--top", "2"]) == 0
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.rstrip().endswith(" better")]
    assert len(rows) == 2 and "more of the" in text
    assert cli.run(["compare", first, second, "--only", "mBioU"]) == 3
    assert "did you mean mBIoU?" in capsys.readouterr().err


def test_a_fresh_clone_has_intervals_by_the_tables_in_git(
    repository: Commits, tmp_path: Path
) -> None:
    """Tables of another run than the metrics, as after a half commit, give none."""
    root, first, second = repository
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(root), str(clone))
    made = []
    for sha in (first, second):
        git(clone, "checkout", "--quiet", sha)
        shutil.copytree(root.parent / "instances" / sha, clone / FOLDER, dirs_exist_ok=True)
        git(clone, "add", "reports")
        git(clone, "commit", "--quiet", "-m", "with tables")
        made.append(git(clone, "rev-parse", "HEAD"))
    found, by_cache = compare(clone, *made), compare(root, first, second)
    assert not found.notes and answer(found).sentence() == answer(by_cache).sentence()
    assert by_row(found)["coco", "hq_sum", "AP"].interval is not None
    assert sum(path.stat().st_size for path in (clone / FOLDER).iterdir()) < 40_000
    shutil.copytree(root.parent / "instances" / first, clone / FOLDER, dirs_exist_ok=True)
    mixed = answer(compare(clone, made[0]))
    assert mixed.status == 3 and "there are no intervals" in mixed.sentence()
    damaged = (clone / FOLDER / "coco-nano.tar.xz").read_bytes()
    for content in (damaged[:-40], b"", damaged[:60] + b"x" + damaged[61:]):
        (clone / FOLDER / "coco-nano.tar.xz").write_bytes(content)
        with pytest.raises(UserError, match="archive") as raised:
            compare(clone, made[0])
        assert "coco-nano.tar.xz" in str(raised.value)


def test_the_answer_follows_from_the_verdicts_of_the_headline_rows(repository: Commits) -> None:
    root, first, second = repository
    found = compare(root, first, second)

    def judged(*verdicts: str) -> tuple[str, int, str]:
        rows = headline(found)[: len(verdicts)]
        changes = tuple(replace(c, verdict=v) for c, v in zip(rows, verdicts, strict=True))  # type: ignore[arg-type]
        given = answer(replace(found, changes=changes))
        head, _, counts = given.sentence().partition("; ")
        return given.outcome, given.status, counts or head

    assert judged("better", "worse") == (
        "mixed",
        1,
        "1 of 2 headline rows worse, 1 better, 0 within noise",
    )
    assert judged("within noise", "cannot move")[:2] == ("no difference found", 0)
    assert judged("cannot move", "cannot move")[2].startswith("2 of 2 headline rows did not move")
    assert judged("not tested", "within noise")[2].endswith(", 1 not tested")
    assert judged("worse", "not tested")[:2] == ("worse", 1)
    assert judged("not comparable", "too few to tell")[:2] == ("cannot be told", 3)
    assert judged("only in A", "within noise")[::2] == (
        "no difference found",
        "1 of 2 headline rows within noise, 0 better, 0 worse, 1 only in A",
    )
    assert judged("only in A", "cannot move")[1] == 0
    assert judged("only in B", "only in A")[1] == 3
    assert judged()[1:] == (
        3,
        "It cannot be told whether B is better, because no headline row is in both revisions",
    )


def test_markdown_of_a_hostile_name_stays_text(repository: Commits) -> None:
    root, first, second = repository
    found = compare(root, first, second)
    name = "x|[a](b)<img>@all\n# y"
    text = to_markdown(replace(found, b=replace(found.b, name=name, sha="")))
    assert r"x\|\[a\](b)\<img\>@<!-- -->all #<!-- --> y" in text


def test_a_run_ends_with_the_answer_against_the_last_report(
    repository: Commits, tmp_path: Path
) -> None:
    root, _, second = repository
    line = last_line(root)
    assert line.startswith(f"Against HEAD ({second[:9]}): this run: no difference found")
    assert line.endswith(f"; report: {root / 'reports/report.html'}") and "\n" not in line
    shutil.copytree(root / "reports", tmp_path / "reports")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "no report yet")
    assert last_line(tmp_path).startswith("No comparison with the last report (there are no metr")


def test_page_names_the_model_where_there_are_several(repository: Commits) -> None:
    root, first, second = repository
    found = compare(root, first, second)
    assert "DIS-VD (nano)" not in to_html(found)
    twice = replace(
        found, changes=(*found.changes, *(replace(c, model="mine") for c in found.changes))
    )
    page = to_html(twice)
    for name in ("nano", "mine"):
        assert f"<td>DIS-VD ({name})</td>" in page and f"DIS-VD ({name}) . mIoU" in page


def test_page_shows_the_most_changed_masks_of_both_revisions(repository: Commits) -> None:
    root, first, second = repository
    found = compare(root, first, second)
    drawn, notes = pictures(found)
    # Predictions are a DVC output of two benchmarks here: the others say so.
    assert len(drawn) == 2 and all("DIS-VD" in p.caption for p in drawn)
    assert notes and all("dvc.lock" in note for note in notes)
    instance = next(i for i in found.instances if i.benchmark == "dis_vd")
    with (
        folders(found.a, "dis_vd", "nano", ()) as (_, a),
        folders(found.b, "dis_vd", "nano", None) as (truth, b),
    ):
        reader = SceneReader(
            Run(truth.parents[2], found.b.params, found.b.results),
            lambda _: ((a, "hq_token"), (b, "hq_token")),
        )
        pick = Pick(
            "dis_vd",
            "nano",
            "gt_box",
            instance.key,
            instance.cluster,
            instance.unit,
            0,
            0,
            BOUNDARY,
        )
        scene = reader.read(pick)
    for mask, value in ((scene.sam, instance.a), (scene.hq, instance.b)):
        assert 100 * boundary_iou(pred=mask, target=scene.truth) == pytest.approx(value, abs=1e-6)


def test_other_protocol_is_refused_and_a_missing_benchmark_is_named(
    repository: Commits, tmp_path: Path
) -> None:
    root, first, _ = repository
    clone = tmp_path / "clone"
    shutil.copytree(root, clone, symlinks=True)
    path = clone / "reports/metrics/dis_vd-nano.json"
    content = json.loads(path.read_text())
    for result in content["results"]:
        result["protocol"]["dilation_ratio"] = 0.01
        result["protocol_hash"] = digest("another")
    path.write_text(json.dumps(content))
    (clone / "reports/metrics/coift-nano.json").unlink()
    found = compare(clone, first)
    refused = [c for c in found.changes if c.benchmark == "dis_vd"]
    assert refused and all(c.verdict == "not comparable" and c.difference is None for c in refused)
    assert refused[0].protocol == (("dilation_ratio", "0.02", "0.01"),)
    assert found.missing == (f"coift (nano) is missing at workspace, it is only at {first[:9]}",)
    assert not any(c.benchmark == "HQ4-mean" for c in found.changes)
    assert "dilation_ratio 0.02 → 0.01" in (page := to_html(found))
    lost = [row for row in answer(found).moved if row.benchmark == "coift"]
    assert [(r.metric, r.verdict, r.b) for r in lost] == [
        (m, "only in A", None) for m in ("mIoU", "mBIoU")
    ]
    assert ", 2 only in A" in answer(found).sentence() and page.count(">only in A<") == 2
    assert to_json(found)["answer"]["counts"]["only in A"] == 2
    alone = compare(clone, first, only=["coift"])
    assert (answer(alone).status, "no headline row is in both" in answer(alone).why) == (3, True)


def test_without_the_cache_points_remain_and_the_cure_is_named(
    repository: Commits,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, first, second = repository
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(root), str(clone))
    found = compare(clone, first, second)
    assert all(c.verdict == "not tested" for c in found.changes)
    change = by_row(found)["dis_vd", "hq_token", "mBIoU"]
    assert change.difference > 0
    assert len(found.notes) == 2 and not any("dvc fetch" in note for note in found.notes)
    assert all("run `dvc repro` at " in note for note in found.notes)
    assert all(f"{name}-nano" in found.notes[0] for name in (*HQ4, "coco", "davis"))
    monkeypatch.chdir(clone)
    assert cli.run(["compare", first, second]) == 3
    assert capsys.readouterr().out.startswith(
        "It cannot be told whether B is better, because there are no intervals"
    )


def test_reads_from_a_remote_when_the_cache_lacks_it(
    repository: Commits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, first, second = repository
    source = tmp_path / "source"
    shutil.copytree(root, source, symlinks=True)
    dvc(source, "remote", "add", "--default", "store", str(tmp_path / "store"))
    # `dvc push --all-commits` skips commits whose own config has no remote yet; the store has the
    # cache's layout.
    (source / ".dvc/cache/files").rename(tmp_path / "store_files")
    (tmp_path / "store").mkdir()
    (tmp_path / "store_files").rename(tmp_path / "store/files")
    lost = yaml.safe_load(git(source, "show", f"{first}:dvc.lock"))["stages"]["score-coift"][
        "outs"
    ][0]["md5"]
    (tmp_path / "store/files/md5" / lost[:2] / lost[2:]).unlink()
    found = compare(source, first, second)
    rows = by_row(found)
    assert rows["dis_vd", "hq_token", "mBIoU"].verdict == "better"
    assert rows["coift", "hq_token", "mBIoU"].verdict == "not tested"
    assert len(found.notes) == 1 and "coift" in found.notes[0] and "remote" in found.notes[0]
    monkeypatch.setattr(dvc_cache, "_MOST_BYTES", 100)  # a dvc.lock may name the largest object
    assert "on the remote it has more than 100 bytes" in str(compare(source, first, second).notes)


def test_errors_name_the_cure(
    repository: Commits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, first, _ = repository
    with pytest.raises(UserError, match="no such revision"):
        compare(root, "no-such-branch")
    with pytest.raises(UserError, match="dash"):
        compare(root, "--output=x")
    with pytest.raises(UserError, match="not a git repository"):
        compare(tmp_path, "HEAD")
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    git(empty, "commit", "--quiet", "--allow-empty", "-m", "nothing")
    with pytest.raises(UserError, match="no metrics at HEAD"):
        compare(empty, "HEAD")
    monkeypatch.chdir(root)
    assert cli.run(["compare", "no-such-branch"]) == 3
    assert cli.run(["compare", first, "--html", str(tmp_path)]) == 2
    assert cli.run(["compare"]) == 2
    assert first


def test_a_project_below_the_top_of_the_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    root = tmp_path / "sub" / "project"
    root.mkdir(parents=True)
    dvc(root, "init", "--quiet", "--subdir")
    write_run(root, strength=0.03)
    dvc(root, "commit", "--force", "--quiet")
    git(root, "add", "params.yaml", "dvc.yaml", "dvc.lock", "reports")
    git(root, "commit", "--quiet", "-m", "one")
    shutil.rmtree(root / "data")
    found = compare(root, "HEAD", "HEAD")
    assert answer(found).status == 0 and not found.notes


def test_json_holds_no_nan(repository: Commits) -> None:
    root, first, second = repository
    content = json.dumps(to_json(compare(root, first, second)), allow_nan=False)
    rows = json.loads(content)["rows"]
    assert all(r["interval"] is None or r["interval"][0] <= r["interval"][1] for r in rows)
    assert not any(isinstance(r["p_family"], float) and math.isnan(r["p_family"]) for r in rows)


def test_the_same_inputs_on_another_machine_are_neither_better_nor_worse(
    repository: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, first, second = repository
    read = Repository.revision
    host = {"cpu": "one", "gpu": "", "threads": "1", "lock": "0", "python": "3", "system": "Linux"}
    inputs = {"data/code/train.json": "1", "data/archives/coco": "2", "data/code/report.json": "3"}
    inputs["models/nano"] = "0"

    def verdicts(**other: Any) -> set[str]:
        """Of the second run with the recorded inputs of the first, but for `other`."""

        def revision(self: Repository, name: str) -> Any:
            found = read(self, name)
            mine = other if name == second else {}
            return replace(
                found,
                params={**found.params, "seed": mine.get("seed", 0)},
                outputs={**found.outputs, **inputs, **mine.get("outputs", {})},
                provenance={"host": {**host, **mine.get("host", {})}},
            )

        with monkeypatch.context() as patch:
            patch.setattr(Repository, "revision", revision)
            found = compare(root, first, second)
        trained = other.get("outputs", {}).get("models/nano")
        assert any("one seed" in note for note in found.notes) == bool(trained)
        return {c.verdict for c in found.changes}

    rounding = {"cannot move", "equal up to rounding"}
    assert verdicts(host={"cpu": "two"}) == rounding
    assert verdicts(host={"cpu": "two"}, outputs={"models/nano": "1"}) == rounding
    assert verdicts(host={"threads": "4"}, outputs={"data/code/report.json": "4"}) == rounding
    for changed in (
        {},
        {"host": {"cpu": "two", "lock": "1"}},
        {"host": {"cpu": "two"}, "seed": 1},
        {"host": {"cpu": "two"}, "outputs": {"data/code/train.json": "4"}},
        {"host": {"cpu": ""}},
    ):
        assert "better" in verdicts(**changed)
