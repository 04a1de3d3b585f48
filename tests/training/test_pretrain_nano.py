"""The script that made the nano weights still runs, and its targets are coarse in the way meant."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES, render_scene
from scripts import nano_data
from tests import REPOSITORY


@pytest.mark.full(
    "three processes that import torch; the weights that the script made are in the repository"
)
def test_script_trains_exports_and_resumes_to_the_same_weights(tmp_path):
    paths = os.pathsep.join(str(REPOSITORY / p) for p in (".", "datasets", "metrics"))
    script = str(REPOSITORY / "scripts" / "pretrain_nano.py")

    def run(work, steps):
        words = [
            "--scenes",
            "4",
            "--batch",
            "4",
            "--steps",
            str(steps),
            "--out",
            f"{work}.safetensors",
        ]
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, script, "--work", str(work), *words],
            env=environment,
            check=True,
            capture_output=True,
        )

    run(tmp_path / "a", 1)
    early = (tmp_path / "a.safetensors").read_bytes()
    run(tmp_path / "a", 2)
    assert (tmp_path / "a.safetensors").read_bytes() != early
    run(tmp_path / "b", 2)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert {str(v.dtype) for v in load_file(tmp_path / "a.safetensors").values()} == {
        "torch.float16"
    }
    build_model(ModelOptions(backbone="nano", checkpoint=tmp_path / "a.safetensors"))


def test_weights_in_the_repository_fit_the_backbone_and_are_small():
    path = REPOSITORY / "hqsam" / "model" / "backbones" / "nano.safetensors"
    assert path.stat().st_size <= 8_000_000
    model = build_model(ModelOptions(backbone="nano", checkpoint=path))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert 3.0e6 < sum(p.numel() for p in model.sam.parameters()) < 3.5e6


def test_coarse_targets_bridge_gaps_and_stay_on_the_object():
    bars = np.zeros((128, 128), np.uint8)
    bars[30:98, 30:98:6] = bars[30:98, 31:98:6] = 255
    target = nano_data.coarsen(bars)
    assert target.shape == (64, 64)
    assert 0.02 < target.min() < 0.04 and 0.96 < target.max() < 0.98
    inside = target[18:46, 18:46]
    assert (inside > 0.5).mean() > 0.9, "the gaps are filled"
    outside = target.copy()
    outside[12:52, 12:52] = 0
    assert outside.max() < 0.1


def test_steps_are_a_function_of_seed_and_number(tmp_path):
    cache = nano_data.render_cache(tmp_path, n=8, seed=3)
    again = nano_data.render_cache(tmp_path, n=8, seed=3)
    assert np.array_equal(cache.images, again.images)
    first, same, other = (
        nano_data.make_step(c, seed=1, step=s, batch=4)
        for c, s in ((cache, 5), (again, 5), (cache, 6))
    )
    assert all(np.array_equal(getattr(first, n), getattr(same, n)) for n in vars(first))
    assert not np.array_equal(first.images, other.images)
    assert first.points.shape == (2, 11, 2) and first.mask_prompts.shape == (2, 64, 64)
    assert (first.boxes[:, 2:] >= first.boxes[:, :2]).all()


def test_cache_holds_training_families_only(monkeypatch, tmp_path):
    seen = set()

    def spy(*, rng, families, **options):
        seen.update(families)
        return render_scene(rng=rng, families=families, **options)

    monkeypatch.setattr(nano_data, "render_scene", spy)
    nano_data.render_cache(tmp_path, n=4, seed=0)
    assert seen == set(TRAIN_FAMILIES)
