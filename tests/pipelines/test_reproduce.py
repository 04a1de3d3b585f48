"""`hqsam repro` on a small DVC pipeline of shell commands: fan-out, order, failures, targets; and the graph it reads."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines.config.graph import read_graph
from hqsam_pipelines.runner import host_client, server
from tests.pipelines.working_copy import (
    LONG_STAGE,
    dvc_repository,
    environment,
    interrupt_long_stage,
    on_server,
    run,
    wait_until,
)

# Each stage notes when it began and ended. `slow` is 3 s so that `other` can only overlap it if
# they run side by side.
STAGES = """
stages:
  part:
    foreach: [a, b]
    do:
      cmd: date +%s.%N > begin-${item} && sleep 3 && cp in-${item} out-${item} && date +%s.%N > end-${item}
      deps:
        - in-${item}
      outs:
        - out-${item}
  join:
    cmd: cat out-a out-b > joined
    deps: [out-a, out-b]
    outs: [joined]
  bad:
    cmd: cat in-bad && test "$(cat in-bad)" = good && cp in-bad out-bad
    deps: [in-bad]
    outs: [out-bad]
  after:
    cmd: cp out-bad after
    deps: [out-bad]
    outs: [after]
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("pipeline")
    for name in ("a", "b", "bad"):
        (root / f"in-{name}").write_text(f"{name}\n")
    dvc_repository(root, STAGES, database)
    yield root
    host_client.stop(root)
    server.stop(root)


@pytest.fixture
def whole(pipeline: Path) -> Path:
    """The pipeline after a run, which the tests before have done unless they were left out."""
    (pipeline / "in-bad").write_text("good")
    if not (pipeline / "after").exists():
        assert run(pipeline, "hqsam", "repro").returncode == 0
    return pipeline


def times(root: Path, name: str) -> tuple[float, float]:
    begin, end = (float((root / f"{word}-{name}").read_text()) for word in ("begin", "end"))
    return begin, end


def test_the_graph_is_dvcs_own(pipeline: Path) -> None:
    graph = read_graph(pipeline, [])
    assert set(graph.order) == set(graph.known) == {"part@a", "part@b", "join", "bad", "after"}
    assert graph.needs["join"] == {"part@a", "part@b"}
    assert graph.order.index("join") > graph.order.index("part@b")
    assert graph.weight["part@a"] == 1
    assert set(read_graph(pipeline, ["join"]).order) == {"part@a", "part@b", "join"}
    assert read_graph(pipeline, ["part"]).targets == ("part@a", "part@b")
    with pytest.raises(UserError, match="did you mean part@"):
        read_graph(pipeline, ["part@x"])


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "dvc.lock"])
def test_a_file_that_is_no_yaml_is_named_with_its_line(
    tmp_path: Path, database: Path, name: str
) -> None:
    stages = "stages:\n  one:\n    cmd: touch done\n    params: [seed]\n    outs: [done]\n"
    dvc_repository(tmp_path, stages, database)
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    assert read_graph(tmp_path, []).order == ("one",)
    there = (tmp_path / name).read_text() if (tmp_path / name).exists() else "schema: '2.0'\n"
    (tmp_path / name).write_text(there + "<<<<<<< HEAD\nseed: {1\n=======\n")
    with pytest.raises(UserError, match="not readable as YAML: line") as caught:
        read_graph(tmp_path, [])
    assert caught.value.file == str(tmp_path / name) and f"git diff -- {tmp_path / name}" in str(
        caught.value
    )


def test_independent_stages_overlap_and_a_failure_blocks_only_its_own(
    pipeline: Path, tmp_path: Path
) -> None:
    done = run(pipeline, "hqsam", "repro", "--json", str(tmp_path / "out.json"))
    outcome = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 1, done.stdout + done.stderr
    assert sorted(outcome["ran"]) == ["join", "part@a", "part@b"]
    assert list(outcome["failed"]) == ["bad"]
    assert outcome["blocked"] == ["after"]
    assert "bad failed" in done.stdout
    assert (pipeline / "joined").read_text() == "a\nb\n"
    states = dict(on_server(pipeline, "read_flow_runs(limit=9)", "[r.name, r.state_type]"))
    assert list(states.values()) == ["FAILED"], "the run of a failed stage is not red"
    tasks = dict(on_server(pipeline, "read_task_runs(limit=99)", "[r.name, r.state_type]"))
    assert tasks == {
        "bad": "FAILED",
        **dict.fromkeys(("part@a", "part@b", "join"), "COMPLETED"),
    }
    (begin_a, end_a), (begin_b, end_b) = times(pipeline, "a"), times(pipeline, "b")
    assert max(begin_a, begin_b) < min(end_a, end_b), "the two parts did not run side by side"


def test_only_what_changed_and_what_follows_runs(whole: Path, tmp_path: Path) -> None:
    (whole / "in-a").write_text("A\n")
    run(whole, "hqsam", "repro", "join", "--json", str(tmp_path / "out.json"))
    outcome = json.loads((tmp_path / "out.json").read_text())
    assert outcome["ran"] == ["part@a", "join"]
    assert outcome["fresh"] == ["part@b"]
    assert (whole / "joined").read_text() == "A\nb\n"


def test_an_unknown_target_or_executor_is_one_message(pipeline: Path) -> None:
    done = run(pipeline, "hqsam", "repro", "joyn")
    assert done.returncode == 1
    assert "unknown stage 'joyn'" in done.stderr
    assert "did you mean join" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    done = run(pipeline, "hqsam", "repro", "--force", "join", HQSAM_EXECUTOR="slurm")
    assert done.returncode == 1
    assert "one of: threads, ray" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_same_bytes_as_plain_dvc(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(
        whole,
        other,
        ignore=shutil.ignore_patterns(
            ".hqsam", "cache", "tmp", "out-*", "joined", "after", "dvc.lock"
        ),
    )
    assert run(other, "dvc", "repro").returncode == 0
    for name in ("out-a", "out-b", "joined", "out-bad", "after"):
        assert (other / name).read_bytes() == (whole / name).read_bytes()
    assert entries(other) == entries(whole)


def entries(root: Path) -> list[str]:
    """The text of dvc.lock by entries, which are in the order in which they first ran."""
    text = (root / "dvc.lock").read_text(encoding="utf-8")
    return sorted(re.split(r"^(?=  \S)", text, flags=re.MULTILINE))


@pytest.mark.full("a server, a host and a run for one signal; the host's own tests send it, too")
@pytest.mark.parametrize("hosted", ["1", "0"])
def test_an_interrupt_ends_the_stages_too(tmp_path: Path, database: Path, hosted: str) -> None:
    root = dvc_repository(tmp_path / "long", LONG_STAGE, database)
    if hosted == "1":
        run(
            root, sys.executable, "-m", "hqsam_pipelines.runner.dvc_run", "version"
        )  # starts the host
        time.sleep(3)
    interrupt_long_stage(root, HQSAM_HOST=hosted)


def test_with_nothing_to_do_no_server_is_started(whole: Path) -> None:
    assert run(whole, "hqsam", "repro").returncode == 0
    server.stop(whole)
    done = run(whole, "hqsam", "repro")
    assert "everything is up to date (5 stages)" in done.stdout, done.stdout + done.stderr
    assert server.status(whole) is None and not list((whole / ".hqsam").glob("dvc-*.sock"))


MORTAL = """
stages:
  one:
    cmd: echo begun >> begun && while ! test -e go; do sleep 0.1; done && cp in one
    deps: [in]
    outs: [one]
  two:
    cmd: cp one two
    deps: [one]
    outs: [two]
"""


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("mortal")
    (root / "in").write_text("in")
    dvc_repository(root, MORTAL, database)
    yield root
    host_client.stop(root)
    server.stop(root)


def begin(root: Path, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        words, cwd=root, env=environment(root), stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def test_the_death_of_the_processes_behind_it_ends_no_run(mortal: Path) -> None:
    root = mortal
    run(root, sys.executable, "-m", "hqsam_pipelines.runner.dvc_run", "version")
    assert wait_until((root / ".hqsam" / "host.sock").exists, 20)
    time.sleep(3)  # the host reads libraries while nobody waits, and answers between two
    process = begin(root, "hqsam", "repro")
    try:
        assert wait_until((root / "begun").exists, 60)
        found = server.status(root)
        assert found is not None and found.pid is not None
        os.kill(found.pid, signal.SIGKILL)
        link = host_client.connect(root)
        assert link is not None
        os.kill(host_client.peer(link)[0], signal.SIGKILL)
        main = Path(f"/proc/{process.pid}/task/{process.pid}")  # its other child forks DVC
        for child in (main / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        (root / "go").touch()
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, out
    assert "2 ran, 0 up to date, 0 failed" in out and (root / "two").read_text() == "in"
    assert (root / "begun").read_text() == "begun\nbegun\n"
    assert "[one] DVC was killed: the stage is tried again" in out
    assert "the Prefect server died" in out and not list((root / ".hqsam").glob("dvc-*.sock"))
    assert "Traceback" not in out and "could not be told" not in out


@pytest.mark.parametrize(
    "killed",
    [
        pytest.param("DVC", marks=pytest.mark.full("the test above kills DVC, too")),
        "its process",
    ],
)
def test_a_stage_that_is_killed_or_its_dvc_is_tried_again(mortal: Path, killed: str) -> None:
    for name in ("begun", "go"):
        (mortal / name).unlink(missing_ok=True)
    process = begin(mortal, "hqsam", "repro", "--force", "one")
    assert wait_until((mortal / "begun").exists, 60)
    writers = json.loads((mortal / ".dvc" / "tmp" / "rwlock").read_text())["write"]
    dvc = psutil.Process(next(iter(writers.values()))["pid"])
    (dvc if killed == "DVC" else dvc.children()[0]).kill()
    (mortal / "go").touch()  # a stage that its DVC has left behind ends first
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert f"[one] {killed} was killed: the stage is tried again" in out
    assert "1 ran" in out and (mortal / "begun").read_text() == "begun\nbegun\n"


def test_half_a_list_of_locks_of_a_killed_dvc_stops_nobody(mortal: Path) -> None:
    """DVC writes the list in place: at the run's start, and while a stage runs."""
    listed = mortal / ".dvc" / "tmp" / "rwlock"
    for name in ("begun", "go"):
        (mortal / name).unlink(missing_ok=True)
    listed.write_text("")
    process = begin(mortal, "hqsam", "repro", "--force", "one")
    assert wait_until((mortal / "begun").exists, 60)
    listed.write_text('{"write": {')
    (mortal / "go").touch()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "[one] a killed DVC left half a list of locks: it is tried again" in out
    assert "1 ran" in out and not json.loads(listed.read_text()).get("write")


def test_runs_wait_for_each_other_and_for_a_plain_dvc(mortal: Path) -> None:
    (mortal / "in").write_text("new")
    for name in ("begun", "go"):
        (mortal / name).unlink(missing_ok=True)
    plain = begin(mortal, "dvc", "repro", "one")
    assert wait_until((mortal / "begun").exists, 60)
    first = begin(mortal, "hqsam", "repro")
    assert "dvc repro one (process " in "".join(lines_until(first, "waiting"))
    second = begin(mortal, "hqsam", "repro")
    assert f"waiting for hqsam repro (process {first.pid}, " in "".join(
        lines_until(second, "waiting")
    )
    (mortal / "go").touch()
    said = "".join(process.communicate(timeout=120)[0] for process in (plain, first, second))
    assert [process.returncode for process in (plain, first, second)] == [0, 0, 0], said
    assert "1 ran, 1 up to date" in said and "everything is up to date" in said
    assert "manually remove" not in said
    assert (mortal / "begun").read_text() == "begun\n" and (mortal / "two").read_text() == "new"


def lines_until(process: subprocess.Popen[str], word: str) -> Iterator[str]:
    """The lines that a process has written, up to the first with a word."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if word in line:
            return


EVALUATION = """
stages:
  predict:
    foreach: [a-m, b-m]
    do:
      cmd: echo ${item} && test ! -e broken-${item} && mkdir -p data/predictions && cp in data/predictions/${item}
      deps: [in]
      outs:
        - data/predictions/${item}
  score:
    foreach: [a-m, b-m]
    do:
      cmd: mkdir -p reports/metrics && cp data/predictions/${item} reports/metrics/${item}.json
      deps:
        - data/predictions/${item}
      outs:
        - reports/metrics/${item}.json:
            cache: false
  report:
    cmd: ls reports/metrics > page
    deps: [reports/metrics]
    outs: [page]
"""


def test_one_failed_benchmark_leaves_the_others_and_a_partial_report(
    tmp_path: Path, database: Path
) -> None:
    root = dvc_repository(tmp_path / "partial", EVALUATION, database)
    try:
        (root / "in").write_text("old")
        assert run(root, "hqsam", "repro").returncode == 0
        assert (root / "page").read_text() == "a-m.json\nb-m.json\n"
        (root / "in").write_text("new")
        (root / "broken-a-m").touch()
        done = run(root, "hqsam", "repro", "--json", "out.json")
        outcome = json.loads((root / "out.json").read_text())
        assert done.returncode == 1, done.stdout
        assert sorted(outcome["ran"]) == ["predict@b-m", "report", "score@b-m"]
        assert list(outcome["failed"]) == ["predict@a-m"] and outcome["absent"] == ["a-m"]
        assert outcome["blocked"] == ["score@a-m"]
        assert "the report is partial; it has no result of: a-m" in done.stdout
        assert (root / "page").read_text() == "b-m.json\n", "an earlier result was reported"
    finally:
        host_client.stop(root)
        server.stop(root)
