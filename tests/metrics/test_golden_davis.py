"""J&F against the official DAVIS program."""

from __future__ import annotations

import numpy as np
import pytest

from hqsam_metrics.masks.jf import statistics
from hqsam_metrics.scores._davis import (
    VOID,
    find_sequences,
    global_metrics,
    per_object,
    score_folders,
    score_sequence,
)
from tests import GOLDEN
from tests.metrics.golden import read_golden


@pytest.fixture(scope="module")
def scores():
    return score_folders(find_sequences(GOLDEN / "davis" / "results", GOLDEN / "davis" / "DAVIS"))


def test_per_frame(scores):
    want = read_golden("davis/expected.json")["per_frame"]
    assert {f"{s.sequence}_{s.object}" for s in scores} == set(want)
    for score in scores:
        cell = want[f"{score.sequence}_{score.object}"]
        assert list(score.frames) == cell["frames"]
        assert score.j == pytest.approx(np.array(cell["J"]), abs=1e-9)
        assert score.f == pytest.approx(np.array(cell["F"]), abs=1e-9)


def test_per_object_and_global(scores):
    want = read_golden("davis/expected.json")
    for row in per_object(scores):
        for name, value in want["objects"][f"{row['sequence']}_{row['object']}"].items():
            assert row[name] == pytest.approx(value, abs=1e-9)
    metrics = global_metrics(scores)
    for name, value in want["global"].items():
        short = name.removesuffix("_mean")
        assert metrics[short] == pytest.approx(value, abs=1e-9), name


def test_workers_change_nothing(scores):
    folders = find_sequences(GOLDEN / "davis" / "results", GOLDEN / "davis" / "DAVIS")
    again = score_folders(folders, workers=2)
    assert per_object(again) == per_object(scores)


def test_decay_of_long_sequences():
    # The official program keeps cut points in 8 bits: from 256 frames on it is wrong. This one is
    # not.
    assert statistics(np.linspace(1, 0, 1000)).decay == pytest.approx(0.75, abs=2e-3)
    assert statistics(np.array([0.3])).decay == 0
    assert statistics(np.array([0.5, 0.6])).recall == 0.5


def test_void_ends_of_the_sequence_and_late_objects_by_hand():
    """Void is background; the first and the last frame do not count; object 2 comes up too late to be evaluated."""
    real = np.zeros((4, 10, 10), np.uint8)
    real[:, 2:6, 2:6] = 1
    real[1, 6, 2:6] = VOID
    real[2, 8:, 8:] = 2
    found = np.where(real == VOID, 1, real)
    found[0] = found[3] = 0
    found[2][found[2] == 2] = 0
    (one,) = score_sequence(
        "s", ["a", "b", "c", "d"], pred=lambda n: found[n], target=lambda n: real[n]
    )
    assert one.frames == ("b", "c") and one.object == 1
    assert one.j.tolist() == [16 / 20, 1.0]
