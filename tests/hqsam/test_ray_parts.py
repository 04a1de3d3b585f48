"""Parts on a real Ray cluster: three nodes of which two die, files by an S3 API, one node."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
    "0"  # before its import: Ray stays on the loopback interface
)

from hqsam.errors import UserError
from hqsam.model import checkpoint
from hqsam.model.backbones import bundled_weights
from hqsam.model.options import ModelOptions
from hqsam.prediction.benchmark import predict
from hqsam.prediction.options import PredictOptions
from hqsam_base import ray_files, ray_parts
from hqsam_base.processes import ordered_map, run_parts
from tests import REPOSITORY
from tests.datasets import trees
from tests.hqsam.test_predict import _write_benchmark
from tests.pipelines.servers import s3_server
from tests.pipelines.working_copy import environment

_NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head without a CPU, and three nodes with one each; they reach an S3 API."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, s3_server("bucket") as store:
        cache = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
        for name, value in (environment(REPOSITORY, OMP_NUM_THREADS="1") | store | cache).items():
            patch.setenv(name, value)
        # Ray takes half a minute to believe that a node is dead; here two seconds.
        soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
        head = _NODE | {"num_cpus": 0, "include_dashboard": False, "_system_config": soon}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            made.nodes = [made.add_node(**_NODE, num_gpus=2) for _ in range(3)]
            made.wait_for_nodes()
            patch.setenv("HQSAM_EXECUTOR", "ray")
            patch.setenv("RAY_ADDRESS", made.address)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, nano: Any) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("predict")
    checkpoint.save_head(
        root / "m" / "hq_head.safetensors", nano.head, metadata={"backbone": "nano"}
    )
    return {
        "benchmark": _write_benchmark(root / "toy"),
        "model": ModelOptions(backbone="nano", checkpoint=bundled_weights("nano")),
        "head": root / "m",
        "options": PredictOptions(threads=1, images_per_part=1, device="cpu"),
    }


@pytest.fixture(scope="module")
def plain(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What this process alone predicts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HQSAM_EXECUTOR", raising=False)
        out = tmp_path_factory.mktemp("plain") / "toy-m"
        predict(**given, out=out, progress=_quiet)
    return _bytes(out)


def _quiet(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total and what


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _devices(job: str, number: int) -> str:
    return f"{job} {os.environ.get('CUDA_VISIBLE_DEVICES')}"


def test_a_part_takes_a_gpu_where_a_node_has_one(cluster: Any) -> None:
    """Two simulated GPUs on each node of one processor: Ray gives a task one of them."""
    tasks = ray_parts.Tasks(_devices, "sees", on_gpu=True)
    assert tasks.slots == 3
    assert set(tasks.as_done(range(3))) <= {"sees 0", "sees 1"}


def _tenfold(marks: Path, number: int) -> int:
    """Ten times the number; the node of the first try of number 3 dies with it, number 9 is a user's error."""
    with (marks / str(number)).open("a") as file:
        file.write("x")
    if number == 3 and (marks / "3").read_text() == "x":
        for process in (os.getppid(), os.getpid()):  # Ray's own process on the node, and this one
            os.kill(process, signal.SIGKILL)
    if number == 9:
        raise UserError("nine is no number of ours", cure="take another")
    return 10 * number


def test_a_lost_node_costs_its_parts_only_and_a_users_error_is_not_tried_again(
    cluster: Any, tmp_path: Path
) -> None:
    parts = run_parts(_tenfold, tmp_path, 6, workers=2, progress=_quiet)
    assert list(parts) == [0, 10, 20, 30, 40, 50]
    tries = [len((tmp_path / str(number)).read_text()) for number in range(6)]
    assert tries[3] == 2 and sum(tries) <= 6 + 2, tries
    with pytest.raises(UserError, match="nine is no number"):
        list(run_parts(_tenfold, tmp_path, 10, workers=2, progress=_quiet))
    assert (tmp_path / "9").read_text() == "x"
    assert list(ordered_map(abs, range(-3, 3), workers=2)) == [3, 2, 1, 0, 1, 2]


def test_files_by_url_and_the_death_of_a_node_in_the_middle_change_no_byte(
    cluster: Any,
    given: dict[str, Any],
    plain: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two nodes are left by now: one dies when the first part is done, and one does the rest."""
    monkeypatch.setenv(ray_files.URL_VARIABLE, "s3://bucket/parts")
    last = [node for node in cluster.nodes if node.any_processes_alive()]

    def kill(done: int, total: int, what: str) -> None:
        if done and len(last) > 1:
            cluster.remove_node(last.pop(), allow_graceful=False)

    predict(**given, out=tmp_path / "toy-m", progress=kill)
    assert len(last) == 1
    assert _bytes(tmp_path / "toy-m") == plain
    store = ray_files.Folder("s3://bucket/parts")
    assert store.has(f"files/{checkpoint.sha256(given['benchmark'] / 'prompts.parquet')}")
    tasks = ray_parts.Tasks(_place, given["benchmark"])
    there = tasks.result(tasks.start("prompts.parquet"))
    assert there.startswith(f"{os.environ['XDG_CACHE_HOME']}/hqsam/parts/")


def _place(folder: Path, name: str) -> str:
    assert (folder / name).is_file()
    return str(folder)


def test_one_node_with_a_common_file_system_writes_the_same_and_goes_on(
    cluster: Any, given: dict[str, Any], plain: dict[str, bytes], tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if done == 2:
            raise StoppedError

    out = tmp_path / "toy-m"
    with pytest.raises(StoppedError):
        predict(**given, out=out, progress=stop)
    seen: list[int] = []
    predict(**given, out=out, progress=lambda done, total, what: seen.append(done))
    assert seen[0] >= 2 and _bytes(out) == plain


def test_samples_that_nodes_normalise_are_the_same(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = trees.ecssd(tmp_path / "in", n=12)
    trees.run("ecssd", archive, tmp_path / "nodes", expected=12, workers=2)
    monkeypatch.delenv("HQSAM_EXECUTOR")
    trees.run("ecssd", archive, tmp_path / "here", expected=12, workers=1)
    assert trees.contents(tmp_path / "nodes") == trees.contents(tmp_path / "here")


def test_a_store_that_does_not_serve_is_one_message(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ray_files.URL_VARIABLE, f"file://{tmp_path}/parts")
    content = ray_files.dumps(given["benchmark"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = ray_files.loads(content)
    assert copy != given["benchmark"] and _bytes(copy) == _bytes(given["benchmark"])
    for path in (tmp_path / "parts" / "files").iterdir():
        path.write_bytes(b"something else")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(UserError, match="not what was sent"):
        ray_files.loads(content)
    monkeypatch.setenv(ray_files.URL_VARIABLE, "nonsense://bucket")
    with pytest.raises(UserError, match="the URL cannot be used"):
        ray_files.dumps(given["benchmark"])
