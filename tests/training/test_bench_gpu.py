"""The GPU benchmark at a tiny size on a CPU, and its count of FLOPs against torch's."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hqsam.model import backbones
from hqsam.model.backbones.base import vit_backbone
from tests import REPOSITORY


@pytest.mark.parametrize("name", ["nano", "vit_l"])
def test_count_of_flops(name):
    """At vit_l's widths and window, with two of its 24 blocks on a smaller picture."""
    from perf.train.bench_gpu import encoder_flops

    shape = {
        "width": 1024,
        "depth": 2,
        "heads": 16,
        "global_blocks": (1,),
        "image_size": 512,
        "window_size": 14,
    }
    backbone = backbones.load("nano") if name == "nano" else vit_backbone("two_blocks", **shape)
    encoder = backbone.build().image_encoder.eval()
    picture = torch.zeros(1, 3, backbone.image_size, backbone.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(picture)
    # The counter also sees the relative positions, which the roofline does not count as work.
    assert (
        1.0
        <= counter.get_total_flops() / encoder_flops(encoder)
        < (1.05 if name == "vit_l" else 1.2)
    )


@pytest.mark.full("a script for a machine with a GPU; its count of FLOPs is checked above")
def test_the_script_runs_at_a_tiny_size(tmp_path):
    paths = os.pathsep.join(str(REPOSITORY / p) for p in (".", "datasets", "metrics", "pipelines"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "perf.train.bench_gpu",
            "--dry",
            "--json",
            str(tmp_path / "out.json"),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = json.loads((tmp_path / "out.json").read_text())
    assert len(out["rows"]) == 5
    assert all(row["met"] is None for row in out["rows"]), "a dry run makes no promises"
    assert all(out["found"][key] > 0 for key in ("rate", "step_s", "whole_s", "load_s", "flops"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    from perf.train.bench_gpu import main

    monkeypatch.setattr(sys, "argv", ["bench_gpu"])
    assert main() == 0
    assert "not measured: torch finds no CUDA device" in capsys.readouterr().out
