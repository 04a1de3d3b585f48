"""Progress, clock and provenance."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

from hqsam_pipelines.config import origin
from hqsam_pipelines.runner import clock, progress, provenance
from tests import REPOSITORY
from tests.pipelines.working_copy import bare_repository, environment, git, run


def test_progress_prints_a_line_now_and_then_and_nothing_for_quick_work(
    monkeypatch: object,
) -> None:
    quick = io.StringIO()
    with progress.ProgressDisplay("fetch-dis5k", stream=quick) as told:
        told(1, 2, "files")
    assert quick.getvalue() == ""
    slow = io.StringIO()
    lines = progress._Lines("fetch-dis5k", slow)
    for second in range(0, 40, 5):
        lines.draw(second, 40, "files", float(second))
    assert slow.getvalue() == (
        "  fetch-dis5k: 15/40 files (38 %), 15 s, about 25 s left\n"
        "  fetch-dis5k: 30/40 files (75 %), 30 s, about 10 s left\n"
    )


def test_the_time_left_is_that_of_the_work_under_way() -> None:
    """A training encodes first; a resumed one begins at a high number."""
    shown = io.StringIO()
    lines = progress._Lines("train-vit_l", shown)
    for second in range(10):
        lines.draw(second, 10, "encode", float(second))
    for second in range(10, 41):
        lines.draw(9000 + 2 * (second - 10), 16_620, "steps", float(second))
    lines.draw(3, 0, "files", 60.0)
    lines.draw(4, 0, "files", 80.0)
    assert shown.getvalue().splitlines() == [
        "  train-vit_l: 9010/16620 steps (54 %), 15 s, about 63 min left",
        "  train-vit_l: 9040/16620 steps (54 %), 30 s, about 63 min left",
        "  train-vit_l: 3/? files, 60 s",
        "  train-vit_l: 4/? files, 80 s",
    ]


def test_reporting_is_cheap() -> None:
    with progress.ProgressDisplay("x", stream=io.StringIO()) as told:
        begin = time.perf_counter()
        for n in range(100_000):
            told(n, 100_000, "images")
        assert time.perf_counter() - begin < 1.0


def test_the_clock_begins_before_the_interpreter() -> None:
    before = time.time()
    code = (
        "import time; from hqsam_pipelines.runner import clock; print(clock.process_start_time(), "
        "time.time())"
    )
    done = run(REPOSITORY, "python", "-c", code)
    started, now = map(float, done.stdout.split())
    assert before - 0.05 <= started < now
    assert abs(clock.process_start_time() - clock.process_start_time()) == 0


def test_cost_splits_library_and_framework() -> None:
    watch = provenance.Clock(process_start=time.time() - 1.0)
    watch.library_begin()
    time.sleep(0.2)
    watch.library_end()
    cost = watch.cost()
    assert 0.19 <= cost.library_s <= 0.6
    assert abs(cost.wall_s - cost.library_s - cost.framework_s) <= 0.02
    assert cost.framework_s >= 0.99
    assert cost.peak_mb > 5


def _record(root: Path, name: str) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from pathlib import Path; from hqsam_pipelines.runner import provenance as p;"
        "p.record_stage(Path(sys.argv[1]), sys.argv[2], p.Cost(2.0, 1.5, 100.0, 1.5, 0.5))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root), name], env=environment(REPOSITORY)
    )


def test_stages_at_the_same_time_lose_no_entry(tmp_path: Path) -> None:
    root = bare_repository(tmp_path / "checkout")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")
    names = [f"score@b{n}-nano" for n in range(8)]
    assert [process.wait(60) for process in [_record(root, name) for name in names]] == [0] * 8
    value = json.loads(provenance.path(root).read_text())
    assert sorted(value["stages"]) == names
    day = git(root, "log", "-1", "--format=%cI")
    commit = git(root, "rev-parse", "HEAD")
    assert value["git"] == {"commit": commit, "date": day, "code_changed": False}
    assert {"torch", "prefect", "dvc", "numpy"} <= set(value["libraries"])
    assert value["host"]["cpu"] and value["host"]["threads"] and "lock" in value["host"]
    provenance.record_run(root, "repro", wall_s=20.0, stages=names[:4], known=names[:4])
    value = json.loads(provenance.path(root).read_text())
    assert sorted(value["stages"]) == names[:4]
    assert value["runs"]["repro"]["library_s"] == 6.0
    assert value["runs"]["repro"]["framework_s"] == 14.0


def test_a_damaged_record_is_begun_anew(tmp_path: Path) -> None:
    root = bare_repository(tmp_path / "checkout")
    provenance.path(root).parent.mkdir()
    provenance.path(root).write_text("{broken")
    assert _record(root, "overlap").wait(60) == 0
    assert list(json.loads(provenance.path(root).read_text())["stages"]) == ["overlap"]


def test_nothing_of_the_machine_but_its_kind_is_recorded() -> None:
    assert set(origin.host()) == {
        "cores",
        "cpu",
        "gpu",
        "machine",
        "python",
        "system",
        "threads",
    }
    assert origin.git_state(REPOSITORY)["commit"]
