"""The launcher with torchrun: same bits as without it, a hang is ended with stacks, nothing survives the parent."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from hqsam_base.errors import UserError
from hqsam_pipelines.runner import launch
from tests import REPOSITORY
from tests.training.processes import Training, free_port, listening, weights
from tests.training.test_processes import spec_of

PARENT = """
import sys
from pathlib import Path
from hqsam.training.train_run import TrainRun
from hqsam_pipelines.runner import launch
launch.train(TrainRun.read(Path(sys.argv[1])), lambda done, total, what: print(done, what, flush=True))
"""


@pytest.fixture(autouse=True)
def own_tree(monkeypatch):
    paths = (str(REPOSITORY / p) for p in (".", "datasets", "metrics", "pipelines"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.mark.full("a watch over torchrun; five imports of torch")
def test_hang_is_ended_with_stacks_and_the_next_run_ends_with_the_same_bits(
    training_set, tmp_path, capfd
):
    spec = spec_of(
        training_set, tmp_path / "nano", epochs=3, processes=2, hang_timeout_s=8, save_every=2
    )
    stopped = []

    def stop_one(done, _total, what):
        if what == "steps" and done >= 3 and not stopped:
            me = psutil.Process()
            worker = next(p for p in me.children(recursive=True) if p.environ().get("RANK") == "1")
            worker.suspend()
            stopped.append(worker)

    with pytest.raises(UserError, match=r"no progress for 8 s"):
        launch.train(spec, stop_one)
    assert stopped
    assert not psutil.wait_procs(stopped, timeout=10)[1]
    told = capfd.readouterr().err
    assert "most recent call first" in told
    assert "distributed_c10d.py" in told  # the other one waits in a collective, whichever it is
    assert (spec.out / "last.pt").exists()
    # Forked ones from here on: two more processes that import torch would double what this test
    # costs.
    patient = spec.model_copy(
        update={"options": spec.options.model_copy(update={"hang_timeout_s": 90.0})}
    )
    for again in (patient, spec_of(training_set, tmp_path / "whole", epochs=3)):
        training = Training(again, 2)
        training.start()
        while training.wait_for(1):
            pass
        assert training.join() == [0, 0]
    assert weights(spec.out) == weights(tmp_path / "whole")


ASKED = pytest.mark.full("test_processes.py sends SIGTERM, too; four more imports of torch")


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=ASKED)])
def test_nobody_else_reaches_the_processes_and_nothing_survives_the_parent(
    training_set, tmp_path, number
):
    spec = spec_of(training_set, tmp_path / "nano", epochs=400, processes=2)
    spec.write(tmp_path / "spec.json")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "spec.json")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert parent.stdout is not None
    next(line for line in parent.stdout if line.endswith("steps\n"))
    children = psutil.Process(parent.pid).children(recursive=True)
    assert {p.environ().get("RANK") for p in children} == {None, "0", "1"}
    open_doors = listening([psutil.Process(parent.pid), *children])
    assert {address for _, address in open_doors} <= {"127.0.0.1"}
    assert {rank for rank, _ in open_doors} <= {"0", "1"}, "gloo's pairs alone need a port"
    begin = time.monotonic()
    parent.send_signal(number)
    assert parent.wait(90) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    _gone, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, f"after {time.monotonic() - begin:.0f} s; on a quiet machine it takes one"
    assert (spec.out / "last.pt").exists()
    assert [
        path.name for path in temporary.iterdir() if "inductor" not in path.name
    ] == []  # torch's own cache stays
    parent.stdout.close()


@pytest.mark.full("torchrun's own rendezvous; four processes that import torch")
def test_two_nodes_that_meet_by_torchruns_rendezvous(training_set, tmp_path):
    spec = spec_of(training_set, tmp_path / "nano", epochs=1)
    spec.write(tmp_path / "spec.json")
    meet = (
        f"--nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d "
        f"--rdzv-endpoint=127.0.0.1:{free_port()} --rdzv-id=hqsam"
    )
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *meet.split(),
        "-m",
        launch.PROGRAM,
        str(tmp_path / "spec.json"),
    ]
    environ = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    nodes = [
        subprocess.Popen(
            words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [node.communicate(timeout=120)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum('@progress [7, 7, "steps"]' in text for text in said) == 1, (
        "the first process reports, whichever node has it"
    )
    whole = Training(spec_of(training_set, tmp_path / "whole", epochs=1), 2)
    whole.start()
    while whole.wait_for(1):
        pass
    assert whole.join() == [0, 0]
    assert weights(spec.out) == weights(tmp_path / "whole")


def test_what_a_training_says_to_a_person_comes_through(training_set, tmp_path):
    spec = spec_of(training_set, tmp_path / "nano", lr=1e30, processes=2)
    with pytest.raises(UserError, match="the loss is nan in epoch 1, step") as caught:
        launch.train(spec, lambda *_: None)
    assert caught.value.key is not None
    assert caught.value.key.startswith("test_")
    assert not (spec.out / "meta.json").exists()


def test_an_uneven_share_is_refused_before_anything_starts(training_set, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "_Child", None)
    spec = spec_of(training_set, tmp_path / "nano", batch_size=3, processes=2)
    with pytest.raises(
        UserError, match=r"batch of 3 views cannot be shared evenly by 2 processes"
    ) as caught:
        launch.train(spec, lambda *_: None)
    assert caught.value.key == "train.batch_size"


def test_processes_without_a_view_each_are_not_even_started(training_set, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "_Child", None)
    with pytest.raises(UserError, match="14 training views for 2000 processes"):
        launch.train(
            spec_of(training_set, tmp_path / "nano", batch_size=2000, processes=2000),
            lambda *_: None,
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_demanded_and_missing(training_set, tmp_path):
    with pytest.raises(UserError, match="no CUDA device"):
        launch.train(spec_of(training_set, tmp_path / "nano", device="cuda"), lambda *_: None)
