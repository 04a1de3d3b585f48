"""`hqsam repro` with its stages fanned out on a local Ray cluster of two nodes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from hqsam_pipelines.runner import doctor_operations, host_client, reproduce, server
from tests import REPOSITORY
from tests.pipelines.working_copy import (
    LONG_STAGE,
    dvc_repository,
    environment,
    interrupt_long_stage,
    run,
)

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
    "0"  # before its import: Ray stays on the loopback interface
)
pytest.importorskip("prefect_ray", reason="prefect-ray is not installed (extra `ray`)")


# Each part waits for the other one to begin: they can only succeed side by side.
STAGES = """
stages:
  part:
    foreach: {a: b, b: a}
    do:
      cmd: touch begin-${key} && timeout 90 sh -c 'until test -e begin-${item}; do sleep 0.1; done' && echo ${key} > out-${key}
      outs:
        - out-${key}
  predict:
    foreach: {a: b, b: a}
    do:
      cmd: >-
        touch start-${key} && timeout 90 sh -c 'until test -e start-${item}; do sleep 0.1; done' &&
        python -c 'import operator; from hqsam_base.ray_parts import Tasks;
        print(*Tasks(operator.add, 40).in_order([1, 2]))' > parts-${key}
      outs:
        - parts-${key}
  join:
    cmd: cat out-a out-b > joined
    deps: [out-a, out-b]
    outs: [joined]
  bad:
    cmd: echo no such luck && false
    outs: [never]
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes with one CPU each, on the loopback interface."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(REPOSITORY, RAY_USAGE_STATS_ENABLED="0").items():
            patch.setenv(name, value)
        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
            cluster.wait_for_nodes()
            yield cluster.address
        finally:
            cluster.shutdown()


def test_stages_run_side_by_side_on_two_nodes(address: str, database: Path, tmp_path: Path) -> None:
    root = dvc_repository(tmp_path / "fan", STAGES, database)
    try:
        done = run(
            root,
            "hqsam",
            "repro",
            "--json",
            str(tmp_path / "out.json"),
            HQSAM_EXECUTOR="ray",
            RAY_ADDRESS=address,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 1 and (tmp_path / "out.json").exists(), said
        outcome = json.loads((tmp_path / "out.json").read_text())
        stages = ["join", "part@a", "part@b", "predict@a", "predict@b"]
        assert sorted(outcome["ran"]) == stages, said
        assert list(outcome["failed"]) == ["bad"]
        assert "no such luck" in outcome["failed"]["bad"]
        assert (root / "joined").read_text() == "a\nb\n"
        # Both wait for parts at the same time, and leave the two processors to them.
        assert [(root / f"parts-{n}").read_text() for n in "ab"] == ["41 42\n"] * 2
        # What ran on Ray is up to date for DVC here: the same files, the same lock file.
        again = run(root, "hqsam", "repro", "join", HQSAM_EXECUTOR="threads")
        assert "everything is up to date (3 stages)" in again.stdout, again.stdout + again.stderr
    finally:
        host_client.stop(root)
        server.stop(root)


def test_a_local_cluster_is_our_own_whatever_a_file_names(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user of the machine can write the file by which Ray finds a running cluster: it would get our stages."""
    import ray

    with tempfile.TemporaryDirectory() as folder:  # its sockets' paths are short
        note = Path(folder) / "ray" / "ray_current_cluster"
        note.parent.mkdir()
        note.write_text(address)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("HQSAM_EXECUTOR", "ray")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with reproduce._runner(1):
            assert ray.get_runtime_context().gcs_address != address


def test_doctor_says_that_the_cluster_runs_another_release(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    (found,) = doctor_operations.ray(tmp_path)
    assert found.level == "ok" and "2 nodes" in found.detail
    # The driver that the doctor starts takes itself for another release; the cluster is what it is.
    (tmp_path / "sitecustomize.py").write_text("import ray; ray.__version__ = '2.1.0'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (found,) = doctor_operations.ray(tmp_path)
    assert found.level == "fail", found
    assert f"runs Ray {metadata.version('ray')} with Python" in found.detail


def test_a_training_takes_the_gpus_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated ones; by Ray's own launcher its processes take them, not the stage."""
    import ray
    from prefect_ray.context import RemoteOptionsContext

    def takes(stage: str) -> dict[str, int]:
        with reproduce._room(stage):
            return dict(RemoteOptionsContext.get().current_remote_options)

    monkeypatch.setenv("HQSAM_EXECUTOR", "ray")
    monkeypatch.setenv("RAY_ADDRESS", "of the cluster that this process has joined")
    monkeypatch.delenv("HQSAM_LAUNCHER", raising=False)
    nodes = [{"Alive": n > 0, "Resources": {"CPU": 1.0, "GPU": 2.0 - n}} for n in range(3)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert takes("train@a") == {"num_gpus": 1} and takes("report") == {}  # the node of two is dead
    assert takes("predict@b-a") == {"num_cpus": 0}
    monkeypatch.setenv("HQSAM_LAUNCHER", "ray")
    assert takes("train@a") == {"num_cpus": 0}


@pytest.mark.full("a server and a driver of Ray for one signal; the host's own tests send it, too")
def test_an_interrupt_ends_the_stages_on_the_nodes_too(
    address: str, database: Path, tmp_path: Path
) -> None:
    root = dvc_repository(tmp_path / "long", LONG_STAGE, database)
    interrupt_long_stage(root, HQSAM_EXECUTOR="ray", RAY_ADDRESS=address, HQSAM_HOST="0")
