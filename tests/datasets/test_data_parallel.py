"""Work in processes: results in order, and one thread of NumPy's in each."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hqsam_datasets.parallel import Crew, ordered_map


def threads_of_a_product(number: int) -> tuple[int, int]:
    """The item, and how many threads this process has after a matrix product that wakes NumPy's."""
    square = np.ones((600, 600), np.float32)
    assert (square @ square)[0, 0] == 600
    return number, len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("workers", [2, 3])
def test_results_come_in_order_from_processes_of_one_thread(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    found = list(ordered_map(threads_of_a_product, range(8), workers=workers))
    assert found == [(number, 1) for number in range(8)]


def write_late(path: Path) -> int:
    """Write a file after a while; the process that did."""
    time.sleep(0.3)
    path.write_text("late")
    return os.getpid()


def test_a_crew_that_was_started_early_does_the_work_and_ends(tmp_path: Path) -> None:
    with Crew(write_late) as crew:
        crew.start(2)
        crew.start(3)  # more are not started
        assert len(multiprocessing.active_children()) == 2
        found = list(crew.map(tmp_path / str(i) for i in range(6)))
    assert len(set(found)) == 2 and os.getpid() not in found
    assert len(list(tmp_path.iterdir())) == 6
    assert not multiprocessing.active_children()


def test_after_a_failure_nothing_is_written_any_more(tmp_path: Path) -> None:
    """Or the temporary folder of the caller could not be removed."""
    with pytest.raises(ValueError, match="enough"), Crew(write_late) as crew:
        crew.start(2)
        for _ in crew.map(tmp_path / str(i) for i in range(40)):
            raise ValueError("enough")
    there = len(list(tmp_path.iterdir()))
    assert 1 <= there < 10
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == there


def test_without_processes_the_caller_works(tmp_path: Path) -> None:
    with Crew(write_late) as crew:
        crew.start(1)
        assert set(crew.map([tmp_path / "a", tmp_path / "b"])) == {os.getpid()}
