"""Each evaluation image is predicted exactly once, and to the same bytes, whatever the number of processes."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqsam.errors import UserError
from hqsam.prediction.benchmark import predict
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.parts import PROCESSES_VARIABLE, process_count, spans
from hqsam_datasets.formats import manifest
from tests import FULL
from tests.hqsam.test_predict import _quiet, _write_benchmark, shared  # noqa: F401  (the fixture of the predict stage's tests)


@given(st.integers(0, 500), st.integers(1, 70))
def test_every_image_is_in_exactly_one_part(n_images: int, size: int) -> None:
    found = spans(n_images, size)
    assert [n for span in found for n in span] == list(range(n_images))
    assert len(found) >= 1 and all(len(span) <= size for span in found)
    assert all(len(span) == size for span in found[:-1])


def test_a_video_is_never_divided_where_frames_follow_each_other() -> None:
    videos = ["a"] * 5 + ["b"] * 2 + [None] + ["c"] * 3
    assert spans(11, 2, videos) == [range(5), range(5, 7), range(7, 11)]


@given(st.integers(0, 40), st.integers(1, 8))
def test_no_more_processes_than_parts(n_parts: int, wanted: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PROCESSES_VARIABLE, str(wanted))
        assert process_count(PredictOptions(device="cpu"), n_parts, []) == max(
            1, min(wanted, n_parts)
        )
        patch.delenv(PROCESSES_VARIABLE)
        assert process_count(PredictOptions(device="cpu"), n_parts, []) == 1


@pytest.mark.parametrize("wrong", ["0", "-1", "many", ""])
def test_a_wrong_number_of_processes_is_named(wrong: str, monkeypatch) -> None:
    monkeypatch.setenv(PROCESSES_VARIABLE, wrong)
    with pytest.raises(UserError, match=PROCESSES_VARIABLE):
        process_count(PredictOptions(device="cpu"), 3, [])


def _run(shared, out: Path):  # noqa: F811
    options = PredictOptions(threads=1, images_per_part=1, batch_images=2, device="cpu")
    return predict(**shared, options=options, out=out, progress=_quiet)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_any_number_of_processes_writes_the_same_bytes(shared, tmp_path, monkeypatch) -> None:  # noqa: F811
    _run(shared, tmp_path / "one" / "toy-nano")
    expected = _contents(tmp_path / "one" / "toy-nano")
    rows = [
        row for part in sorted(tmp_path.rglob("part-*.parquet")) for row in manifest.read_rows(part)
    ]
    assert len(rows) == len({(row["prompt_id"], row["system"]) for row in rows}) == 4 * 5 * 3
    for world in (
        (2, 8) if FULL else (2,)
    ):  # five images in five parts: eight are more than there is work for
        monkeypatch.setenv(PROCESSES_VARIABLE, str(world))
        _run(shared, tmp_path / str(world) / "toy-nano")
        assert _contents(tmp_path / str(world) / "toy-nano") == expected, world
        assert [path.name for path in (tmp_path / str(world)).iterdir()] == ["toy-nano"]


@pytest.mark.full(
    "the message of a process comes through in the test below, too; two imports of torch"
)
def test_a_damaged_image_is_one_message_from_any_process(shared, tmp_path, monkeypatch) -> None:  # noqa: F811
    broken = _write_benchmark(tmp_path / "toy")
    archive = broken / "images-00000.tar"
    archive.write_bytes(archive.read_bytes().replace(b"IDAT", b"IDAX"))
    monkeypatch.setenv(PROCESSES_VARIABLE, "2")
    with pytest.raises(UserError, match=r"cannot be read.*4 of 5 parts failed"):
        _run({**shared, "benchmark": broken}, tmp_path / "out" / "toy-nano")
    assert not (tmp_path / "out" / "toy-nano").exists()


def test_a_killed_process_is_one_message_and_the_next_run_goes_on(
    shared,  # noqa: F811
    tmp_path,
    monkeypatch,
) -> None:
    _run(shared, tmp_path / "one" / "toy-nano")
    out = tmp_path / "out" / "toy-nano"
    monkeypatch.setenv(PROCESSES_VARIABLE, "2")
    before = _children()

    def kill_one() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            workers = _children() - before
            if workers and list(out.parent.glob(".toy-nano.partial/part-*.parquet")):
                os.kill(min(workers), signal.SIGKILL)
                return
            time.sleep(0.001)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        with pytest.raises(UserError, match="a predicting process died"):
            _run(shared, out)
    finally:
        killer.join()
    assert list(out.parent.glob(".toy-nano.partial/part-*.parquet")) and not out.exists()
    monkeypatch.setenv(PROCESSES_VARIABLE, "1")
    _run(shared, out)
    assert _contents(out) == _contents(tmp_path / "one" / "toy-nano")
    assert json.loads((out / "predict.json").read_bytes())["n_images"] == 5


def _children() -> set[int]:
    """Processes that this one's threads have spawned to predict."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for word in (task / "children").read_text().split():
            line = Path(f"/proc/{word}/cmdline")
            if line.exists() and b"spawn_main" in line.read_bytes():
                found.add(int(word))
    return found
