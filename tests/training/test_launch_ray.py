"""The launcher with Ray on a local cluster of two nodes: the bits of two torchrun processes, and what is refused."""

import json
import os
import subprocess
import sys

import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines.runner import launch
from tests import REPOSITORY
from tests.training.processes import Training, weights
from tests.training.test_processes import spec_of

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
    "0"  # before its import: Ray stays on the loopback interface
)
pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
from hqsam_pipelines.runner import launch_ray

LOCAL = """
import json, os, sys
from pathlib import Path

import psutil

from hqsam.training.train_run import TrainRun
from hqsam_pipelines.runner import launch

seen = set()

def look(done, total, what):
    if what == "steps" and not seen:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        doors = [(p.name(), c.laddr.ip) for p in processes for c in p.net_connections("tcp") if c.status == "LISTEN"]
        seen.update(doors)

launch.train(TrainRun.read(Path(sys.argv[1])), look)
print(json.dumps(sorted(seen)))
"""


def test_a_local_cluster_listens_on_the_loopback_interface_alone(training_set, tmp_path):
    spec = spec_of(training_set, tmp_path / "nano", epochs=1, processes=2)
    spec.write(tmp_path / "spec.json")
    paths = os.pathsep.join(str(REPOSITORY / p) for p in (".", "datasets", "metrics", "pipelines"))
    dropped = ("RAY_", "GLOO_", "NCCL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    path = os.pathsep.join([paths, kept.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", LOCAL, str(tmp_path / "spec.json")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=kept | {"PYTHONPATH": path, "HQSAM_LAUNCHER": "ray", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    doors = json.loads(done.stdout.splitlines()[-1])
    assert doors, "Ray's own processes listen somewhere"
    assert not [door for door in doors if door[1] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one CPU each, on the loopback interface."""
    from ray.cluster_utils import Cluster

    paths = os.pathsep.join(str(REPOSITORY / p) for p in (".", "datasets", "metrics", "pipelines"))
    settings = {
        "PYTHONPATH": paths,
        "GLOO_SOCKET_IFNAME": "lo",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
            cluster.wait_for_nodes()
            patch.setenv("RAY_ADDRESS", cluster.address)
            patch.setenv("HQSAM_LAUNCHER", "ray")
            yield cluster
        finally:
            cluster.shutdown()


def test_two_nodes_give_the_bits_of_two_processes(training_set, tmp_path, cluster):
    told = []
    spec = spec_of(training_set, tmp_path / "ray" / "nano", epochs=2, processes=2)
    meta = launch.train(spec, lambda *progress: told.append(progress))
    assert len(cluster.list_all_nodes()) == 2, "with one CPU each: the two workers are on two nodes"
    assert meta["steps"] == 14
    assert (14, 14, "steps") in told
    whole = Training(spec_of(training_set, tmp_path / "whole", epochs=2), 2)
    whole.start()
    while whole.wait_for(1):
        pass
    assert whole.join() == [0, 0]
    assert weights(spec.out) == weights(tmp_path / "whole")
    assert not list(spec.out.parent.glob(".*")), "Ray leaves nothing beside the outputs"


@pytest.mark.full("four imports of torch for a message; test_launch.py has it through torchrun")
def test_what_a_worker_has_to_say_to_a_person_arrives(training_set, tmp_path, cluster):
    spec = spec_of(training_set, tmp_path / "nano", epochs=1, processes=2, batch_size=3)
    with pytest.raises(UserError, match="batch_size"):
        launch.train(spec, lambda *_: None)


def test_a_cluster_that_is_too_small_is_refused(training_set, tmp_path):
    spec = spec_of(training_set, tmp_path / "nano", processes=3)
    with pytest.raises(
        UserError, match=r"3 training processes need a CPU each, the Ray cluster has 2"
    ):
        launch_ray.count(spec, {"CPU": 2.0})
    on_gpus = spec.model_copy(
        update={"options": spec.options.model_copy(update={"processes": 0, "device": "cuda"})}
    )
    assert launch_ray.count(on_gpus, {"CPU": 2.0, "GPU": 4.0}) == 4
    with pytest.raises(UserError, match="need a GPU each"):
        launch_ray.count(on_gpus, {"CPU": 2.0})


def test_an_unknown_launcher_is_refused(training_set, tmp_path, monkeypatch):
    monkeypatch.setenv("HQSAM_LAUNCHER", "slurm")
    with pytest.raises(UserError, match="one of: torchrun, ray"):
        launch.train(spec_of(training_set, tmp_path / "nano"), lambda *_: None)
