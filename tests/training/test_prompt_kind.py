"""A kind of prompt that is one file goes through the whole: plan, loader, training step, index, predictions, pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hqsam.model import checkpoint
from hqsam.model.build import build_model
from hqsam.prediction.benchmark import predict
from hqsam.prediction.options import PredictOptions
from hqsam.training.batch import collate
from hqsam.training.feed import encode
from hqsam.training.group import Group
from hqsam.training.loader import Item, TrainingSet
from hqsam.training.state import RunState, TrainProgress
from hqsam.training.step import Step
from hqsam_base.errors import UserError
from hqsam_datasets import prompts
from hqsam_datasets.benchmarks.base import BenchmarkOptions
from hqsam_datasets.diagnose import drawing, lookup
from hqsam_datasets.formats.images import encode_png
from hqsam_datasets.formats.manifest import read_rows
from hqsam_datasets.prepare import augment
from hqsam_datasets.prepare.index import index
from hqsam_pipelines.report import draw
from tests import toys
from tests.training.test_loop import BASE, options


@pytest.fixture(scope="module")
def scribbles():
    with toys.installed(prompts, "prompts"):
        yield
    prompts.load.cache_clear()
    prompts.of_table.cache_clear()


@pytest.fixture(scope="module")
def planned(scribbles, training_set, augment_options, tmp_path_factory):
    """A plan with box and scribble."""
    out = tmp_path_factory.mktemp("plan") / "prompts"
    chosen = augment_options.model_copy(update={"prompts": ("box", "scribble")})
    found = augment.write_prompts(
        shards=training_set[0], out=out, options=chosen, seed=0, progress=lambda *_: None
    )
    assert found["prompts"].keys() == {"box", "scribble"} and found["prompts"]["scribble"] > 5
    return out


def test_the_others_draw_what_they_drew_without_it(scribbles, augment_options):
    mask = np.zeros((90, 120), np.uint8)
    mask[20:70, 30:90] = 255
    given = {"key": "k", "view": 0, "seed": 0}
    before, pictures = augment.plan_view([mask], **given, options=augment_options)
    more = augment_options.model_copy(update={"prompts": ("scribble", *augment_options.prompts)})
    after, others = augment.plan_view([mask], **given, options=more)
    assert {name: after[name] for name in ("box", "points", "jitter")} == {
        n: before[n] for n in ("box", "points", "jitter")
    }
    np.testing.assert_array_equal(pictures["noise"], others["noise"])
    assert after["scribble"]


def test_it_is_trained_with(planned, training_set):
    data = TrainingSet(shards=training_set[0], prompts=planned)
    views = [data.view(Item(n, v)) for n in range(14) for v in (0, 1)]
    data.close()
    mine = [view for view in views if view.prompt == "scribble"]
    assert len({len(view.given.points) for view in mine}) > 1, (
        "strokes of several lengths are not padded"
    )
    for view in mine:
        assert all(view.mask[y, x] > 128 for x, y in view.given.points.astype(int))
    model = build_model(BASE, seed=0).train()
    parameters = model.trainable()
    before = {name: p.detach().clone() for name, p in parameters.items()}
    state = RunState(
        parameters, torch.optim.Adam(parameters.values()), torch.Generator(), TrainProgress()
    )
    batch = collate(mine[:4])
    loss, _ = Step(model, options(points=64), Group(0, 1, torch.device("cpu")), 0).take(
        state, batch, encode(model, batch)
    )
    assert torch.isfinite(loss.total)
    assert any(not torch.equal(before[name], p) for name, p in parameters.items())


def test_it_is_indexed_predicted_and_drawn(scribbles, tmp_path):
    for n in range(2):
        mask = np.zeros((60, 90), np.uint8)
        mask[20:40, 10 : 50 + 20 * n] = 255
        for name, picture in (
            ("images", np.repeat(mask[..., None] // 2, 3, axis=2)),
            ("masks", mask),
        ):
            (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name / f"{n}.png").write_bytes(encode_png(picture))
    chosen = BenchmarkOptions(
        prompt_sets=("gt_box", "gt_scribble", "gt_point"), images="images", masks="masks"
    )
    out = tmp_path / "benchmarks" / "own"
    given = {
        "root": tmp_path / "in",
        "options": chosen,
        "progress": lambda *_: None,
        "kind": "folder",
    }
    found = index("own", **given, out=out)
    assert found["n_prompts"] == {"gt_box": 2, "gt_point": 2, "gt_scribble": 2}
    assert index("own", **given, out=tmp_path / "again")["digest"] == found["digest"]
    given["options"] = chosen.model_copy(update={"seed": 1})
    other = index("own", **given, out=tmp_path / "other")
    assert other["digest"] != found["digest"], "points are drawn"
    rows = {row["prompt_id"]: row for row in read_rows(out / "prompts.parquet")}
    [row] = [
        row for row in rows.values() if row["prompt_set"] == "gt_scribble" and row["key"] == "own_0"
    ]
    assert (row["kind"], row["points"], row["labels"]) == (
        "scribble",
        [[x, 20.0] for x in range(10, 50, 8)],
        [1] * 5,
    )

    model = build_model(BASE, seed=0)
    checkpoint.save_head(tmp_path / "m" / "hq_head.safetensors", model.head, metadata={})
    predict(
        benchmark=out,
        model=BASE,
        head=tmp_path / "m",
        options=PredictOptions(threads=1),
        out=tmp_path / "own-nano",
        progress=lambda *_: None,
    )
    masks = {
        (r["prompt_id"], r["system"]): r
        for r in read_rows(tmp_path / "own-nano" / "part-00000.parquet")
    }
    assert len(masks) == 6 * 3 and masks[row["prompt_id"], "sam"]["mask_area"] > 0

    image = np.zeros((60, 90, 3), np.uint8)
    sheet = drawing.draw_evaluation(image, [], [row])
    assert (sheet[114, drawing.TILE * 2 + 16 + 100] != 0).any(), (
        "a line at row 20 of 60, in the third tile"
    )
    mask = np.zeros((60, 90), bool)
    scene = draw.Scene(image, mask, mask, mask, prompts.marks_of_row(row))
    panel = draw.Painter(scene, 180).prompt()
    assert (np.abs(panel.astype(int) - draw.PROMPT).sum(axis=2) < 60).sum() > 60


def test_a_sheet_shows_the_kinds_of_the_plan(planned, training_set, tmp_path):
    (tmp_path / "shards").symlink_to(training_set[0])
    (tmp_path / "prompts").symlink_to(planned)
    key = json.loads((training_set[0] / "index.json").read_text())["shards"][0]["keys"][0]
    found = lookup.find_sample(key, tmp_path)
    assert found.pictures == [{}, {}]
    sheet = drawing.draw_sample(found.sample, found.views, found.pictures)
    assert sheet.shape[:2] == (3 * (512 + 8) + 32, 3 * 512 + 16)  # 32: the legend
    yellow = (sheet == (255, 235, 0)).all(axis=2)
    assert yellow[520:1032].sum() > 100


def test_an_unknown_kind_is_told(tmp_path):
    with pytest.raises(ValueError, match="no kind circle"):
        augment.AugmentOptions(prompts=("circle",))
    with pytest.raises(ValueError, match="no prompt set gt_circle"):
        BenchmarkOptions(prompt_sets=("gt_circle",))
    with pytest.raises(UserError, match="unknown prompt kind"):
        prompts.of_row({"kind": "circle"})
