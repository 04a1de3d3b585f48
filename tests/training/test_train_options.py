"""What single options of the training change, and what is refused before work is lost."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hqsam.model.build import build_model
from hqsam.model.load import load_any
from hqsam.model.options import ModelOptions
from hqsam.training.batch import collate
from hqsam.training.cache import CachePlan
from hqsam.training.checks import check_nodes, check_processes, compile_encoder
from hqsam.training.feed import encode
from hqsam.training.group import Group
from hqsam.training.loader import Item, TrainingSet, epoch_plan
from hqsam.training.loss import boundary_region, loss_at_points
from hqsam.training.options import TrainOptions
from hqsam.training.probe import largest_fitting
from hqsam.training.state import LAST
from hqsam.training.step import Step, mask_logits, predict
from hqsam.training.train_run import TrainRun
from hqsam_base.errors import UserError
from hqsam_datasets import prompts
from hqsam_datasets.prepare import augment
from tests import REPOSITORY
from tests.training.test_loop import BASE, options, run

ALONE = Group(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def data(training_set):
    found = TrainingSet(shards=training_set[0], prompts=training_set[1])
    yield found
    found.close()


@pytest.fixture(scope="module")
def batch(data):
    return collate([data.view(Item(n, n % 2)) for n in range(6)])


@pytest.fixture(scope="module")
def model():
    return build_model(BASE, seed=0).train()


def gradients(model, batch, *, micro_batch=0, **changes):
    """Gradient of one step as one vector, and its losses."""
    step = Step(model, options(**changes), ALONE, micro_batch)
    model.zero_grad(set_to_none=True)
    loss = step.gradients(torch.Generator().manual_seed(3), batch, encode(model, batch), at="test")
    flat = torch.cat([p.grad.flatten() for p in model.trainable().values()])
    return flat, loss


def test_micro_batches_add_up_to_the_batch(model, batch):
    whole, loss = gradients(model, batch)
    for size in (1, 4):
        added, same = gradients(model, batch, micro_batch=size)
        torch.testing.assert_close(added, whole, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(
            (same.bce, same.dice), (loss.bce, loss.dice), atol=1e-5, rtol=1e-5
        )


def test_ranks_average_to_the_batch_of_one_process():
    """The shares of two ranks are the batch of one: step by step the same views."""
    items = [Item(n, 0) for n in range(21)]
    one = epoch_plan(items, seed=5, epoch=2, batch_size=6)
    two = [epoch_plan(items, seed=5, epoch=2, batch_size=3, rank=r, world=2) for r in (0, 1)]
    assert [sorted(map(repr, step)) for step in one] == [
        sorted(map(repr, a + b)) for a, b in zip(*two, strict=True)
    ]


def test_same_view_same_loss_cached_and_online(model, batch):
    """Features rounded to 16 bits move the loss by less than a hundredth."""
    full = encode(model, batch)
    step = Step(model, options(), ALONE, 0)
    exact = step.gradients(torch.Generator().manual_seed(3), batch, full, at="test").total
    for dtype in (torch.float16, torch.bfloat16):
        rounded = type(full)(full.final_BCHW.to(dtype).float(), full.early_BVHW.to(dtype).float())
        cached = step.gradients(torch.Generator().manual_seed(3), batch, rounded, at="test").total
        assert abs(cached - exact) < 1e-2 * exact
    low = encode(model, batch, bf16=True)
    assert low.final_BCHW.dtype == torch.float32
    assert not torch.equal(low.final_BCHW, full.final_BCHW)
    autocast = step.gradients(torch.Generator().manual_seed(3), batch, low, at="test").total
    assert abs(autocast - exact) < 2e-2 * exact


def test_bf16_keeps_float32_weights_and_gradients(training_set, tmp_path):
    meta = run(training_set, tmp_path / "nano", precision="bf16", cache_dtype="bfloat16", epochs=1)
    assert math.isfinite(meta["final"]["loss"])
    assert {v.dtype for v in load_file(tmp_path / "nano" / "hq_head.safetensors").values()} == {
        torch.float32
    }


def test_ema_best_and_merged(training_set, tmp_path):
    out = tmp_path / "nano"
    kept = run(training_set, out, ema=0.5, best=True, merged=True)
    plain = run(training_set, tmp_path / "plain")
    assert kept["digest"] != plain["digest"]
    rows = [line.split(",") for line in (out / "curves.csv").read_text().splitlines()]
    scores = [float(row[rows[0].index("hq_token_mBIoU")]) for row in rows[1:]]
    best = load_file(out / "best.safetensors")
    last = load_file(out / "hq_head.safetensors")
    same = all(torch.equal(best[k], last[k]) for k in last)
    assert same == (scores[-1] > scores[0])
    whole = load_any(out / "sam_hq.pth", backbone="nano")
    assert all(torch.equal(value, last[name]) for name, value in whole.head.state_dict().items())


def test_average_follows_the_parameters():
    from hqsam.training.state import RunState, TrainProgress

    weight = torch.nn.Parameter(torch.tensor([0.0]))
    state = RunState({"w": weight}, torch.optim.Adam([weight]), torch.Generator(), TrainProgress())
    for value in (8.0, 0.0, 0.0):
        with torch.no_grad():
            weight.fill_(value)
        state.follow(0.5)
    assert state.average["w"].item() == 2.0
    with state.averaged():
        assert weight.item() == 2.0
    assert weight.item() == 0.0


def test_compiled_blocks_give_the_same_features(batch):
    plain, compiled = build_model(BASE, seed=0), build_model(BASE, seed=0)
    compile_encoder(
        compiled, options(compile=True), backend="eager"
    )  # the graphs; their kernels would take minutes here
    torch.testing.assert_close(
        encode(compiled, batch[:1]).final_BCHW,
        encode(plain, batch[:1]).final_BCHW,
        atol=1e-3,
        rtol=1e-3,
    )


def test_boundary_loss_sees_the_band_only():
    labels = torch.zeros(1, 1, 64, 64)
    labels[..., 16:48, 16:48] = 1
    band = boundary_region(labels, ratio=0.02)
    assert band.sum() == 36 * 36 - 28 * 28, "two pixels on both sides"
    points = torch.rand(1, 400, 2, generator=torch.Generator().manual_seed(0))
    logits = torch.full((1, 1, 64, 64), 3.0)
    far = boundary_region(labels, ratio=0.05) == 0
    changed = torch.where(far, torch.tensor(-9.0), logits)
    before = loss_at_points(logits, labels, points, region_B1HW=band)
    after = loss_at_points(changed, labels, points, region_B1HW=band)
    torch.testing.assert_close(before.total, after.total, atol=1e-5, rtol=1e-5)
    everywhere = [loss_at_points(x, labels, points).total for x in (logits, changed)]
    assert abs(everywhere[0] - everywhere[1]) > 0.5


@pytest.mark.parametrize(
    "changes", [{"loss_region": "boundary"}, {"supervise": "both"}, {"mask_prompt": "logits"}]
)
def test_options_of_the_loss_reach_the_gradient(model, batch, changes):
    assert set(batch.prompts) == set(prompts.DEFAULT), "the batch has each kind of prompt"
    plain, _ = gradients(model, batch)
    other, _ = gradients(model, batch, **changes)
    assert not torch.equal(plain, other)


def test_supervising_both_is_the_mean_of_token_and_sum(model, batch):
    """The official code tests with the sum that it never trained: `supervise: both` trains it."""
    _, token = gradients(model, batch)
    _, both = gradients(model, batch, supervise="both")
    masks = predict(model, batch, encode(model, batch))
    step = Step(model, options(), ALONE, 0)
    drawn = step._draw(len(batch), torch.Generator().manual_seed(3))
    of_sum = loss_at_points(masks.sum_P1hw, batch.label_B1SS, drawn.points(masks.sum_P1hw))
    torch.testing.assert_close(both.bce, (token.bce + of_sum.bce.detach()) / 2)
    torch.testing.assert_close(both.dice, (token.dice + of_sum.dice.detach()) / 2)


def test_mask_prompts_as_picture_or_logits(batch):
    """The official code feeds 0/255 where SAM was trained with logits: that is the default, `logits` the option."""
    assert TrainOptions().mask_prompt == "picture"
    noises = np.stack([given.mask for given in batch.given if given.mask is not None])
    assert set(np.unique(noises)) == {0, 255}
    assert set(np.unique(mask_logits(noises))) == {-10.0, 10.0}


def test_a_view_with_too_few_pixels_costs_only_itself_its_points(
    training_set, tmp_path, augment_options
):
    """The official code takes the point prompt from the whole batch; the plan takes it from that view alone."""
    many = augment_options.model_copy(update={"points": 600})
    augment.write_prompts(
        shards=training_set[0], out=tmp_path / "p", options=many, seed=0, progress=lambda *_: None
    )
    data = TrainingSet(shards=training_set[0], prompts=tmp_path / "p")
    views = [data.view(Item(n, v)) for n in range(14) for v in (0, 1)]
    plans = [data.plan(n)[0]["views"][v] for n in range(14) for v in (0, 1)]
    few = [view for view, plan in zip(views, plans, strict=True) if not plan["points"]]
    assert 0 < len(few) < len(views)
    assert all(view.prompt != "point" for view in few)
    assert any(view.prompt == "point" for view in views)
    data.close()


def test_empty_crops_are_drawn_again_or_replaced(training_set, tmp_path, augment_options):
    """The official code has no filter: an empty crop has the box (1e8, 1e8, 0, 0)."""
    for redraws in (0, 16):
        small = augment_options.model_copy(
            update={"scale": (1.9, 2.0), "max_redraws": redraws, "min_foreground": 6000}
        )
        out = tmp_path / str(redraws)
        augment.write_prompts(
            shards=training_set[0], out=out, options=small, seed=0, progress=lambda *_: None
        )
        index = json.loads((out / "index.json").read_text())
        data = TrainingSet(shards=training_set[0], prompts=out)
        boxes = np.array([data.plan(n)[0]["views"][v]["box"] for n in range(14) for v in (0, 1)])
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
        assert boxes.max() <= 128
        assert index["fallbacks" if redraws == 0 else "redraws"] > 0
        data.close()


def test_memory_probe_halves_until_it_fits():
    tried = []

    def fits(limit):
        return lambda size: tried.append(size) or size <= limit

    assert largest_fitting(32, fits(9)) == 8
    assert tried == [32, 16, 8]
    assert largest_fitting(5, fits(100)) == 5
    assert largest_fitting(5, fits(0)) == 1


def test_micro_batch_auto_on_the_cpu_is_the_whole_share(training_set, tmp_path):
    auto = run(training_set, tmp_path / "a", micro_batch="auto", epochs=1)
    assert auto["digest"] == run(training_set, tmp_path / "b", epochs=1)["digest"]


def test_cache_estimate_and_refusal(tmp_path):
    plan = CachePlan(n_views=1000, bytes=8 * 2**30, in_memory=False, free=2**30, passes=12.0)
    text = plan.text(0.5)
    assert "1000 views, 8.00 GiB in disk (1.0 GiB free)" in text
    assert "500 s once, 6000 s in all online: worth it" in text
    with pytest.raises(UserError, match=r"take 8\.0 GiB, the disk has 1\.0 GiB free"):
        plan.check(tmp_path)
    assert "online would encode no more" in CachePlan(10, 1, True, 0, 1.0).text(0.5)


def test_the_estimate_is_said_before_the_bulk_is_encoded(training_set, tmp_path, capsys):
    run(training_set, tmp_path / "nano", epochs=1)
    assert "cached features: 24 views" in capsys.readouterr().err


def test_a_killed_run_encodes_only_what_is_missing(training_set, tmp_path):
    """Features on the disk outlive the process; those of another run do not count."""

    def interrupt(done, _total, what):
        if what == "encode" and done >= 12:
            raise KeyboardInterrupt

    def encoded(out, **changes):
        said = []
        meta = run(
            training_set,
            out,
            epochs=1,
            encode_batch=6,
            progress=lambda *a: said.append(a),
            **changes,
        )
        return meta["digest"], [done for done, _, what in said if what == "encode"]

    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            run(
                training_set,
                tmp_path / name,
                epochs=1,
                encode_batch=6,
                cache_gib=0.0,
                progress=interrupt,
            )
        assert (tmp_path / f".{name}.features" / "done.bin").read_bytes() == bytes([1, 1, 0, 0])
    whole = encoded(tmp_path / "whole")
    assert whole[1] == [6, 12, 18, 24]
    assert encoded(tmp_path / "a", cache_gib=0.0) == (whole[0], [18, 24])
    assert encoded(tmp_path / "b", cache_gib=0.0, cache_dtype="bfloat16")[1] == [6, 12, 18, 24]
    assert not list(tmp_path.glob(".*")), "nothing is left of a run that ended"


def test_training_on_some_sources_only(training_set, tmp_path, data):
    assert data.of_sources(("test",)) == data.of_sources(()) == list(range(14))
    with pytest.raises(UserError, match="hold no sample of dis5k") as caught:
        run(training_set, tmp_path / "nano", sources=["dis5k"])
    assert "test" in caught.value.cure


def test_a_stopped_training_is_not_mixed_with_another(training_set, tmp_path, augment_options):
    out = tmp_path / "nano"

    def second_epoch(done, _total, what):
        if what == "steps" and done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(training_set, out, progress=second_epoch)
    kept = (out / LAST).read_bytes()

    augment.write_prompts(
        shards=training_set[0],
        out=tmp_path / "prompts",
        options=augment_options,
        seed=1,
        progress=lambda *_: None,
    )
    with pytest.raises(UserError, match=r"another one \(data\.prompts: (?s:.*) delete last\.pt"):
        run((training_set[0], tmp_path / "prompts"), out)
    with pytest.raises(UserError, match=r"options\.lr: 0\.001 there, 0\.002 now"):
        run(training_set, out, lr=0.002)
    with pytest.raises(UserError, match=r"seed: 0 there, 1 now"):
        run(training_set, out, seed=1)
    with pytest.raises(UserError, match=r"model\.variant: hq there, context_tokens now"):
        run(
            training_set,
            out,
            model=ModelOptions(
                backbone="nano", checkpoint=BASE.checkpoint, variant="context_tokens"
            ),
        )
    with pytest.raises(UserError, match=r"base: "):
        run(training_set, out, model=ModelOptions(backbone="nano"))
    assert (out / LAST).read_bytes() == kept, "nothing was lost"
    assert run(training_set, out, workers=1, save_every=3)["steps"] == 8


def test_more_processes_than_views_and_uneven_shares(data):
    with pytest.raises(UserError, match="3 training views for 4 processes"):
        check_processes(3, options(batch_size=4), 4)
    with pytest.raises(UserError, match="batch of 6 views cannot be shared evenly by 4"):
        check_processes(30, options(batch_size=6), 4)
    check_processes(
        28, options(batch_size=8), 8
    )  # more than the three shards: samples are read by their offsets
    shares = [
        epoch_plan([Item(n, 0) for n in range(28)], seed=0, epoch=0, batch_size=1, rank=r, world=8)
        for r in range(8)
    ]
    assert {len(s) for s in shares} == {3}


def test_cached_features_stay_on_one_machine(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    check_nodes(options(feed="cached"), 2)
    check_nodes(options(feed="online"), 4)
    with pytest.raises(UserError, match="2 of the 4 training processes are on this machine"):
        check_nodes(options(feed="cached"), 4)


def test_variants_that_change_the_encoder_need_the_online_feed(training_set, tmp_path):
    lora = ModelOptions(backbone="nano", checkpoint=BASE.checkpoint, variant="lora_encoder")
    with pytest.raises(UserError, match="lora_encoder changes the encoder") as caught:
        run(training_set, tmp_path / "a", model=lora)
    assert caught.value.key == "train.feed"
    with pytest.raises(UserError, match="no place for the variant lora_encoder"):
        run(training_set, tmp_path / "b", model=lora, feed="online", merged=True)
    meta = run(training_set, tmp_path / "c", model=lora, feed="online", views="cycle", epochs=1)
    assert meta["variant"] == "lora_encoder"
    before = build_model(lora, seed=0).head.state_dict()
    after = load_file(tmp_path / "c" / "hq_head.safetensors")
    assert all(not torch.equal(before[k], after[k]) for k in before if k.endswith("up.weight"))


def test_the_program_says_what_is_wrong_with_its_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        TrainRun.read(tmp_path / "none.json")
    (tmp_path / "spec.json").write_text('{"shards": "x"}')
    with pytest.raises(UserError, match="Field required"):
        TrainRun.read(tmp_path / "spec.json")


def test_the_plain_program(training_set, tmp_path):
    spec = TrainRun(
        shards=training_set[0],
        prompts=training_set[1],
        model=BASE,
        options=options(epochs=1),
        out=tmp_path / "nano",
        seed=0,
    )
    spec.write(tmp_path / "spec.json")
    assert TrainRun.read(tmp_path / "spec.json") == spec
    paths = os.pathsep.join(str(REPOSITORY / p) for p in (".", "datasets", "metrics", "pipelines"))
    done = subprocess.run(
        [sys.executable, "-m", "hqsam.training.run", str(tmp_path / "spec.json")],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '@progress [4, 4, "steps"]' in done.stdout
    assert json.loads((tmp_path / "nano" / "meta.json").read_text())["steps"] == 4
    assert Path(tmp_path / "nano" / "hq_head.safetensors").exists()
