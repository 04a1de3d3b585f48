"""Leases of GPUs, with simulated devices: the number that torch tells is a stand-in, the processes are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hqsam.model import leases
from hqsam.prediction import parts
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.part import Job
from hqsam.systems import Context
from tests import REPOSITORY

_OWNER = """
import sys, time, torch
from pathlib import Path
from hqsam.model import leases
torch.cuda.device_count = lambda: 3
with leases.leased(Path(sys.argv[1]), least=1, most=int(sys.argv[2]), owner="train m", say=print) as mine:
    print(*mine, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that holds two of three devices."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path), "2"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None and process.stdout.readline().split() == ["0", "1"]
    yield process
    process.kill()
    process.wait()


def test_a_device_is_one_stages_and_a_dead_owners_is_free(owner, tmp_path: Path) -> None:
    with leases.leased(tmp_path, least=1, most=3, owner="predict b", say=pytest.fail) as mine:
        assert mine == ["2"]
    said: list[str] = []

    def end_owner(line: str) -> None:
        said.append(line)
        os.kill(owner.pid, signal.SIGKILL)

    with leases.leased(tmp_path, least=3, most=3, owner="predict b", say=end_owner) as mine:
        assert mine == ["0", "1", "2"]
    held = f"by train m (process {owner.pid})"
    assert said == [f"waiting for 2 GPUs: 0 is held {held}, 1 is held {held}"]


def test_visible_devices_are_taken_by_their_names(
    owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")  # 1 is the owner's, whatever its place here
    with leases.leased(tmp_path, least=1, most=2, owner="b", say=pytest.fail) as mine:
        assert mine == ["2"] and leases.environment(mine) == {"CUDA_VISIBLE_DEVICES": "2"}


def test_a_predict_stage_takes_a_process_for_each_device_that_is_free(
    owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(parts.PROCESSES_VARIABLE, raising=False)
    options = PredictOptions(device="auto")
    job = Job(tmp_path, Context(None, None, options), (), leases=tmp_path)
    with parts._devices(job, 5, on_ray=False) as mine:
        assert mine == ["2"] and parts.process_count(options, 5, mine) == 1
    owner.kill()
    owner.wait()
    with parts._devices(job, 2, on_ray=False) as mine:
        assert mine == ["0", "1"] and parts.process_count(options, 2, mine) == 2
    with parts._devices(job, 5, on_ray=True) as mine:  # Ray's own resources
        assert mine == leases.visible()
