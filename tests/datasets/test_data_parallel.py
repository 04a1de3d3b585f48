"""Work in processes: results in order, and one thread of NumPy's in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hqsam_datasets.parallel import ordered_map


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
