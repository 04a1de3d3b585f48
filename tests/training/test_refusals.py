"""What would lose work or train nothing is refused with a message, and what was saved before stays."""

import shutil
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam.training.batch import collate
from hqsam.training.cache import _mapped
from hqsam.training.events import NAME, EventFile
from hqsam.training.group import Group
from hqsam.training.loader import Item, TrainingSet
from hqsam.training.probe import reserve
from hqsam.training.state import LAST, RunState, TrainProgress
from hqsam.training.step import Step
from hqsam_base.errors import UserError
from tests.training.test_loop import BASE, WEIGHTS, options, run


def _state() -> RunState:
    weight = torch.nn.Parameter(torch.ones(3))
    return RunState({"w": weight}, torch.optim.Adam([weight]), torch.Generator(), TrainProgress())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_spoiled_parameters_never_replace_what_was_saved(tmp_path, value):
    """A finite loss can have a gradient that is not; saved, it would be what every later run goes on from."""
    state = _state()
    state.write(tmp_path, {"a": 1}, [state.generator.get_state()])
    before = (tmp_path / LAST).read_bytes()
    with torch.no_grad():
        state.parameters["w"][1] = value
    with pytest.raises(UserError, match="no longer finite") as error:
        state.write(tmp_path, {"a": 1}, [state.generator.get_state()])
    assert error.value.key == "w"
    assert (tmp_path / LAST).read_bytes() == before


def test_too_small_a_memory_names_the_key_that_keeps_the_batch(training_set, tmp_path, monkeypatch):
    def update(self, state, loss, asks):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Step, "update", update)
    with pytest.raises(UserError, match="CUDA out of memory") as error:
        run(training_set, tmp_path / "nano", epochs=1)
    assert error.value.key == "train.micro_batch" and "auto" in error.value.cure


def test_a_run_whose_last_step_diverged_leaves_no_weights(training_set, tmp_path, monkeypatch):
    """No later loss would show it."""
    update = Step.update

    def spoil(self, state, loss, asks):
        found = update(self, state, loss, asks)
        with torch.no_grad():
            next(iter(state.parameters.values())).fill_(float("nan"))
        return found

    monkeypatch.setattr(Step, "update", spoil)
    out = tmp_path / "nano"
    with pytest.raises(UserError, match="no longer finite"):
        run(training_set, out, epochs=1, batch_size=512)
    assert {path.name for path in out.iterdir()}.isdisjoint(
        {"hq_head.safetensors", "meta.json", LAST}
    )


def test_a_held_out_slice_that_is_all_or_nothing(training_set, tmp_path):
    with pytest.raises(UserError, match="none is left to train on") as error:
        run(training_set, tmp_path / "a", holdout=0.99, holdout_most=1000)
    assert error.value.key == "train.holdout"
    with pytest.raises(UserError, match="no epoch can be called the best"):
        run(training_set, tmp_path / "b", holdout=0.0, best=True)
    run(training_set, tmp_path / "c", holdout=0.0, epochs=1)


def test_a_damaged_download_is_not_trained_on(training_set, tmp_path):
    """It has a published name and other content: hours of training would stand on it."""
    path = tmp_path / "sam_vit_l_0b3195.pth"
    torch.save(load_file(WEIGHTS), path)
    with pytest.raises(UserError, match="SHA-256"):
        run(training_set, tmp_path / "out", model=ModelOptions(backbone="nano", checkpoint=path))


def test_the_memory_probe_leaves_room_for_what_comes_later(training_set):
    data = TrainingSet(shards=training_set[0], prompts=training_set[1])
    view, model = data.view(Item(0, 0)), build_model(BASE)
    data.close()
    batch = collate([view] * 8)
    moving = sum(t.nbytes for t in (batch.image_B3SS, batch.label_B1SS))
    features = sum(
        t.nbytes
        for t in vars(model.encode(model.preprocess(batch.image_B3SS))).values()
        if t is not None
    )
    adam = torch.optim.Adam(model.trainable().values())
    for parameter in model.trainable().values():
        parameter.grad = torch.zeros_like(parameter)
    adam.step()
    moments = sum(s[n].nbytes for s in adam.state.values() for n in ("exp_avg", "exp_avg_sq"))
    for ema, copies in ((0.0, 2.0), (0.9, 2.5)):
        step = Step(model, options(ema=ema), Group(0, 1, torch.device("cpu")), 0)
        assert (
            reserve(step, view, 8, n_held_out=3) == copies * moments + 4 * moving + 3 / 8 * features
        )
        many = Step(model, options(ema=ema, workers=30), step.group, 0)
        assert reserve(many, view, 2, n_held_out=0) == copies * moments + 8 * moving


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(words, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_a_message_wherever_it_is_met(training_set, small_disk):
    """While the state is saved, while the curve grows, and before a cached feature is written into a hole of a file."""
    with pytest.raises(UserError, match="disk is full") as error:
        run(training_set, small_disk / "nano", epochs=1)
    assert error.value.file == str(small_disk / "nano" / LAST)
    assert {path.name for path in (small_disk / "nano").iterdir()} == {NAME, "curves.csv"}
    with pytest.raises(UserError, match="disk is full"):
        _mapped(small_disk / "features.bin", np.uint8, (1_000_000,))
    (small_disk / "features.bin").unlink()
    with (
        pytest.raises(UserError, match=r"resumes from last\.pt"),
        EventFile(small_disk, []) as events,
    ):
        for step in range(10_000):
            events.add(step, {"train/loss": 1.0})
