"""The train stage's entry point on a small real set: it learns, repeats, resumes, and says what is wrong."""

import csv
import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.model.options import ModelOptions
from hqsam.training.batch import collate
from hqsam.training.events import NAME
from hqsam.training.feed import encode
from hqsam.training.loader import Item, TrainingSet
from hqsam.training.loop import train
from hqsam.training.options import TrainOptions
from hqsam.training.step import Step, predict_hq
from hqsam.training.train_run import TrainRun
from hqsam_base.errors import UserError
from hqsam_base.progress import silent
from tests import REPOSITORY

WEIGHTS = REPOSITORY / "hqsam" / "model" / "backbones" / "nano.safetensors"
BASE = ModelOptions(backbone="nano", checkpoint=WEIGHTS)


def options(**changes):
    small = {
        "epochs": 2,
        "batch_size": 6,
        "points": 256,
        "feed": "cached",
        "holdout": 0.15,
        "threads": 1,
    }
    return TrainOptions(**(small | changes))


def run(training_set, out, *, seed=0, model=BASE, progress=None, **changes):
    wanted = TrainRun(
        shards=training_set[0],
        prompts=training_set[1],
        model=model,
        options=options(**changes),
        out=out,
        seed=seed,
    )
    return train(wanted, progress=progress or silent)


@pytest.fixture(scope="module")
def trained(training_set, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "nano"
    torch.set_num_threads(1)
    return out, run(training_set, out)


def test_outputs(trained):
    out, meta = trained
    assert sorted(p.name for p in out.iterdir()) == [
        "curves.csv",
        NAME,
        "hq_head.safetensors",
        "meta.json",
    ]
    assert json.loads((out / "meta.json").read_text()) == meta
    rows = list(csv.DictReader((out / "curves.csv").open()))
    assert [r["epoch"] for r in rows] == ["1", "2"]
    assert {
        "loss",
        "sam_mIoU",
        "sam_mBIoU",
        "hq_token_mIoU",
        "hq_token_mBIoU",
        "hq_sum_mBIoU",
    } <= set(rows[0])
    assert rows[0]["sam_mIoU"] == rows[1]["sam_mIoU"], "the base is frozen"
    assert meta["steps"] == 2 * (12 * 2 // 6)
    assert meta["n_held_out"] == 2
    assert not list(out.parent.glob(".*")), "no scratch folder is left"


def test_the_base_is_hashed_once(training_set, tmp_path, monkeypatch):
    """A ViT-H takes 2.6 GB: twice the digest is seconds of reading before the first step."""
    real, read = checkpoint.sha256, []
    monkeypatch.setattr(checkpoint, "sha256", lambda path: read.append(path) or real(path))
    meta = run(training_set, tmp_path / "nano", epochs=1, points=16)
    assert read == [WEIGHTS]
    assert meta["base_sha256"] == real(WEIGHTS)


def test_only_the_hq_head_trains(trained):
    head = load_file(trained[0] / "hq_head.safetensors")
    fresh = build_model(BASE, seed=0).head.state_dict()
    assert set(head) == set(fresh)
    assert all(not torch.equal(head[k], fresh[k]) for k in head), "every HQ parameter moved"
    assert sum(v.numel() for v in head.values()) == trained[1]["n_parameters"]


def test_same_seed_same_bytes_and_another_seed_differs(trained, training_set, tmp_path):
    again = run(training_set, tmp_path / "nano")
    assert again == trained[1]
    for name in ("hq_head.safetensors", "curves.csv", "meta.json", NAME):
        assert (tmp_path / "nano" / name).read_bytes() == (trained[0] / name).read_bytes()
    other = run(training_set, tmp_path / "other", seed=1, epochs=1)
    assert other["digest"] != trained[1]["digest"]


def test_loss_falls(training_set, tmp_path):
    meta = run(training_set, tmp_path / "nano", epochs=6, lr_drop_epoch=5, holdout=0.0)
    rows = list(csv.DictReader((tmp_path / "nano" / "curves.csv").open()))
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    assert [r["lr"] for r in rows] == ["0.001"] * 5 + ["0.0001"]
    assert meta["n_held_out"] == 0


def test_memory_mapped_features_change_nothing(trained, training_set, tmp_path):
    assert run(training_set, tmp_path / "nano", cache_gib=0.0)["digest"] != ""
    assert (tmp_path / "nano" / "hq_head.safetensors").stat().st_size > 0
    mapped = load_file(tmp_path / "nano" / "hq_head.safetensors")
    kept = load_file(trained[0] / "hq_head.safetensors")
    assert all(torch.equal(mapped[k], kept[k]) for k in kept)
    assert not list(tmp_path.glob(".*"))


def test_online_feed_agrees_with_cached_up_to_half_precision(trained, training_set, tmp_path):
    online = run(training_set, tmp_path / "nano", feed="online")
    assert online["final"]["loss"] == pytest.approx(trained[1]["final"]["loss"], abs=0.02)
    cycle = run(training_set, tmp_path / "cycle", feed="online", views="cycle", epochs=2)
    assert cycle["steps"] == 2 * (12 // 6)


def test_resume_after_an_interruption_gives_the_same_bits(
    trained, training_set, tmp_path, monkeypatch
):
    out, real, calls = tmp_path / "nano", Step.update, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 6:  # in the second epoch, after the first one was saved
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(Step, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        run(training_set, out)
    assert (out / "last.pt").exists()
    assert not (out / "meta.json").exists()
    monkeypatch.setattr(Step, "update", real)
    said = []
    meta = run(training_set, out, progress=lambda *a: said.append(a))
    assert (1, 2, "resumed") in said
    assert meta == trained[1]
    assert (out / "hq_head.safetensors").read_bytes() == (
        trained[0] / "hq_head.safetensors"
    ).read_bytes()
    assert not (out / "last.pt").exists()


def test_state_of_another_run_is_not_taken_up(trained, training_set, tmp_path):
    out = tmp_path / "nano"
    out.mkdir()
    (out / "last.pt").write_bytes(b"damaged")
    assert run(training_set, out) == trained[1]


def test_prompts_of_each_kind_are_decoded_as_alone(training_set):
    data = TrainingSet(shards=training_set[0], prompts=training_set[1])
    model = build_model(BASE, seed=0)
    views = [data.view(Item(n, n % 2)) for n in range(8)]
    batch = collate(views)
    with torch.no_grad():
        encoded = encode(model, batch)
        together = predict_hq(model, batch, encoded)
        for i, view in enumerate(views):
            alone = predict_hq(model, collate([view]), encoded[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, atol=2e-4, rtol=1e-4)
    assert len({v.prompt for v in views}) >= 2
    data.close()


def test_clear_errors(training_set, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="does not exist"):
        run(
            training_set,
            tmp_path / "a",
            model=ModelOptions(backbone="nano", checkpoint=tmp_path / "no.safetensors"),
        )
    with pytest.raises(ValidationError, match="unknown backbone"):
        ModelOptions(backbone="nona", checkpoint=WEIGHTS)
    state = load_file(WEIGHTS)
    state["image_encoder.pos_embed"] = torch.zeros(1, 3, 3, 7)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match="pos_embed"):
        run(
            training_set,
            tmp_path / "b",
            model=ModelOptions(backbone="nano", checkpoint=tmp_path / "wrong.safetensors"),
        )
    with pytest.raises(ValidationError):
        TrainOptions(epochs=-1)
    with pytest.raises(ValidationError):
        TrainOptions(epoch=3)
    with pytest.raises(UserError, match="loss is nan"):
        run(training_set, tmp_path / "c", lr=1e30)
    for name in "abc":
        assert not (tmp_path / name / "meta.json").exists()
        assert not (tmp_path / name / "hq_head.safetensors").exists()


def test_plan_for_another_model_size(training_set, tmp_path, augment_options):
    from hqsam_datasets.prepare import augment

    small = augment_options.model_copy(update={"image_size": 96, "mask_input_size": 48})
    augment.write_prompts(
        shards=training_set[0],
        out=tmp_path / "prompts",
        options=small,
        seed=0,
        progress=lambda *_: None,
    )
    with pytest.raises(UserError, match=r"augment\.image_size"):
        run((training_set[0], tmp_path / "prompts"), tmp_path / "nano")
