"""`epochs: 0`: a published HQ-SAM goes through the pipeline as it is."""

import csv
import json

import pytest
from safetensors.torch import load_file

from hqsam.model.options import ModelOptions
from hqsam.training.train_run import TrainRun
from hqsam_base.errors import UserError
from hqsam_pipelines.report.tables import curve_table
from hqsam_pipelines.runner import launch
from tests.training.test_loop import BASE, options, run


@pytest.fixture(scope="module")
def published(training_set, tmp_path_factory):
    """A file in the published layout, and what trained in it."""
    out = tmp_path_factory.mktemp("published") / "nano"
    meta = run(training_set, out, epochs=1, merged=True)
    return ModelOptions(backbone="nano", checkpoint=out / "sam_hq.pth"), out, meta


def test_the_checkpoints_own_head_is_written_as_a_training_writes_its(
    published, training_set, tmp_path
):
    model, trained, meta = published
    out = tmp_path / "models" / "given"
    found = run(training_set, out, model=model, epochs=0)
    own, theirs = (load_file(folder / "hq_head.safetensors") for folder in (out, trained))
    assert own.keys() == theirs.keys()
    assert all(own[name].equal(theirs[name]) for name in own)
    assert found["digest"] == meta["digest"]
    assert found.keys() == meta.keys(), "whatever reads the one reads the other"
    assert (found["steps"], found["n_samples"], found["n_held_out"], found["final"]) == (
        0,
        0,
        0,
        {},
    )
    assert json.loads((out / "meta.json").read_text()) == found
    assert list(csv.reader((out / "curves.csv").open())) == [
        ["epoch", "lr", "loss", "loss_bce", "loss_dice"]
    ]
    assert sorted(p.name for p in out.iterdir()) == [
        "curves.csv",
        "hq_head.safetensors",
        "meta.json",
    ]
    assert curve_table(tmp_path, ["given"]) == (
        ["model", "epoch", "lr", "loss", "loss_bce", "loss_dice"],
        [],
    )


def test_no_gpu_and_no_second_process_is_needed(published, training_set, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hqsam_pipelines.runner.launch.subprocess.Popen",
        lambda *_, **__: pytest.fail("a child was started"),
    )
    wanted = options(epochs=0, device="cuda", processes=3, feed="online")
    spec = TrainRun(
        shards=training_set[0],
        prompts=training_set[1],
        model=published[0],
        options=wanted,
        out=tmp_path / "nano",
        seed=0,
    )
    assert launch.train(spec, lambda *_: None)["digest"] == published[2]["digest"]


@pytest.mark.parametrize(
    "model",
    [BASE, ModelOptions(backbone="nano", checkpoint=BASE.checkpoint, variant="context_tokens")],
)
def test_a_checkpoint_without_hq_parameters_is_refused(training_set, tmp_path, model):
    with pytest.raises(UserError, match=f"none for the variant {model.variant}") as caught:
        run(training_set, tmp_path / "nano", model=model, epochs=0)
    assert caught.value.key == "train.epochs"
    assert ("variant to hq" if model.variant != "hq" else "HQ-SAM checkpoint") in caught.value.cure
    assert caught.value.file == str(BASE.checkpoint)
    assert not (tmp_path / "nano" / "hq_head.safetensors").exists()


def test_a_refused_run_costs_no_finished_model_and_a_given_one_shows_no_old_curves(
    published, training_set, tmp_path
):
    out = tmp_path / "nano"
    run(training_set, out, epochs=1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "events.out.tfevents.0.hqsam" in before
    with pytest.raises(UserError, match="0 epochs"):
        run(training_set, out, epochs=0)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(UserError, match="none can be the best"):
        run(training_set, out, model=published[0], epochs=0, best=True)
    run(training_set, out, model=published[0], epochs=0)
    assert sorted(p.name for p in out.iterdir()) == [
        "curves.csv",
        "hq_head.safetensors",
        "meta.json",
    ]


def test_the_views_may_be_planned_for_another_size(training_set, tmp_path):
    """A ViT takes 1024 pixels, the plan's views have 128: nothing is trained on them."""
    with pytest.raises(UserError, match="none for the variant hq"):
        run(training_set, tmp_path / "tiny", model=ModelOptions(backbone="vit_tiny"), epochs=0)
