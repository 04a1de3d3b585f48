"""Work in processes: results in order, and one thread of NumPy's in each."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

from hqsam_base.processes import Crew, ordered_map
from tests import REPOSITORY


def threads_of_a_product(number: int) -> tuple[int, int]:
    """The item, and how many threads a matrix product gives this process that wakes NumPy's."""
    before = len(list(Path("/proc/self/task").iterdir()))
    square = np.ones((600, 600), np.float32)
    assert (square @ square)[0, 0] == 600
    return number, len(list(Path("/proc/self/task").iterdir())) - before


@pytest.mark.parametrize("workers", [2, 3])
def test_results_come_in_order_from_processes_of_one_thread(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    forkserver._forkserver._stop()  # one that another test started has that test's environment
    found = list(ordered_map(threads_of_a_product, range(8), workers=workers))
    assert found == [(number, 0) for number in range(8)]


def use_much(number: int) -> int:
    """Take 200 MB and a fifth of a second."""
    end = time.process_time() + 0.2
    much = bytearray(200 << 20)
    while time.process_time() < end:
        much[::4096] = bytes(len(much[::4096]))
    return number


USE = """
import resource
from hqsam_base.processes import ordered_map
from tests.base import test_processes

if __name__ == "__main__":
    assert len(list(ordered_map(test_processes.use_much, range(4), workers=2))) == 4
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert used.ru_utime + used.ru_stime > 0.8 and used.ru_maxrss > 200 << 10, used
"""


def test_what_processes_use_counts_as_used_by_the_callers_children(tmp_path: Path) -> None:
    """The provenance of a stage is made of it."""
    (tmp_path / "use.py").write_text(USE)
    kept = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, tmp_path / "use.py"], env=kept, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def write_late(path: Path) -> int:
    """Write a file after a while; the process that did."""
    time.sleep(0.3)
    path.write_text("late")
    return os.getpid()


def test_a_crew_that_was_prepared_does_the_work_and_ends(tmp_path: Path) -> None:
    with Crew(write_late) as crew:
        crew.prepare(3)
        crew.prepare(2)  # the last word holds
        found = list(crew.map(tmp_path / str(i) for i in range(6)))
    assert len(set(found)) == 2 and os.getpid() not in found
    assert len(list(tmp_path.iterdir())) == 6
    assert not multiprocessing.active_children()


def test_after_a_failure_nothing_is_written_any_more(tmp_path: Path) -> None:
    """Or the temporary folder of the caller could not be removed."""
    with pytest.raises(ValueError, match="enough"), Crew(write_late) as crew:
        crew.prepare(2)
        for _ in crew.map(tmp_path / str(i) for i in range(40)):
            raise ValueError("enough")
    there = len(list(tmp_path.iterdir()))
    assert 1 <= there < 10
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == there


def test_without_processes_the_caller_works(tmp_path: Path) -> None:
    with Crew(write_late) as crew:
        crew.prepare(1)
        assert set(crew.map([tmp_path / "a", tmp_path / "b"])) == {os.getpid()}


SCRIPT = """
import os, sys, time
from hqsam_base.processes import ordered_map

def work(number):
    os.write(1, b"%d %d\\n" % (os.getpid(), os.getppid()))
    time.sleep(0.2)
    return number

if __name__ == "__main__":
    for number in ordered_map(work, range(1000), workers=2):
        if number == 3:
            exec(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("how", "status"),
    [("os.kill(os.getpid(), 9)", -9), ("os.killpg(0, 15)", -15), ("os.killpg(0, 2)", -2)],
)
def test_nothing_outlives_a_caller_that_is_killed(tmp_path: Path, how: str, status: int) -> None:
    """Neither the processes, nor the server that they were forked from, nor its socket; the last one is Ctrl-C."""
    (tmp_path / "killed.py").write_text(SCRIPT)
    (tmp_path / "t").mkdir()
    words, kept = (
        [sys.executable, tmp_path / "killed.py", how],
        {**os.environ, "TMPDIR": str(tmp_path / "t")},
    )
    # A shell starts its background jobs with SIGINT ignored, and whatever runs in them inherits
    # that.
    done = subprocess.run(
        words,
        env=kept,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    found = {int(pid) for pid in done.stdout.split()}
    assert done.returncode == status and len(found) == 3, done.stderr
    deadline = time.monotonic() + 20
    while (
        left := [pid for pid in found if Path(f"/proc/{pid}").exists()]
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left and not list((tmp_path / "t").iterdir())


def test_files_of_the_current_folder_are_not_run(tmp_path: Path) -> None:
    """Python's own server would import what is called like a module of the library from wherever it is started."""
    for name in ("socket", "numpy", "xxhash"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('foreign')")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "whole.py").write_text(SCRIPT)
    words = [
        sys.executable,
        tmp_path / "scripts" / "whole.py",
        "sys.exit('PYTHONSAFEPATH' in os.environ)",
    ]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_temporary_folder_too_long_for_a_socket_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forkserver._forkserver._stop()
    monkeypatch.setitem(
        multiprocessing.current_process()._config, "tempdir", str(tmp_path / ("long" * 40))
    )
    assert list(ordered_map(abs, range(-4, 0), workers=2)) == [4, 3, 2, 1]
