"""Plan, pairing and reading: the exact sample list of every rank, and clear errors."""

import shutil
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqsam.model.prompt_inputs import group
from hqsam.training.batch import collate
from hqsam.training.loader import (
    Item,
    TrainingSet,
    epoch_items,
    epoch_plan,
    held_out,
    n_views,
    prefetch,
)
from hqsam_base.errors import UserError


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 200),
    size=st.integers(1, 16),
    world=st.integers(1, 5),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_ranks_share_an_epoch_without_overlap(n, size, world, seed, epoch):
    items = [Item(i, 0) for i in range(n)]
    options = {"seed": seed, "epoch": epoch, "batch_size": size, "world": world}
    if n < world:
        with pytest.raises(UserError, match="processes"):
            epoch_plan(items, rank=0, **options)
        return
    plans = [epoch_plan(items, rank=r, **options) for r in range(world)]
    assert len({len(p) for p in plans}) == 1, "a rank with fewer steps would hang the others"
    assert {len(step) for p in plans for step in p} == {min(size, n // world)}
    seen = [item for p in plans for step in p for item in step]
    assert len(seen) == len(set(seen))
    assert n - len(seen) < world * size
    assert plans == [epoch_plan(items, rank=r, **options) for r in range(world)]


def test_epochs_differ_and_cover_everything_in_time():
    items = [Item(i, 0) for i in range(50)]
    plans = [epoch_plan(items, seed=1, epoch=e, batch_size=16) for e in range(6)]
    assert plans[0] != plans[1]
    assert {i for p in plans for step in p for i in step} == set(items)


def test_cycle_takes_one_view_per_epoch():
    assert epoch_items([3, 5], views=4, cycle=True, epoch=6) == [Item(3, 2), Item(5, 2)]
    assert epoch_items([3], views=2, cycle=False, epoch=6) == [Item(3, 0), Item(3, 1)]


def test_held_out_slice_is_stable():
    keys = [f"k{i}" for i in range(400)]
    slice_ = held_out(keys, share=0.05, most=48)
    assert len(slice_) == 20
    assert slice_ == held_out(keys[::-1], share=0.05, most=48)
    assert len(slice_ - held_out(keys[1:], share=0.05, most=48)) <= 2
    assert len(held_out(keys, share=0.5, most=48)) == 48
    assert held_out(keys, share=0.0, most=48) == set()


def test_prefetch_keeps_order_and_passes_errors_on():
    def slow_first(x):
        time.sleep(0.02 if x == 0 else 0)
        if x == 7:
            raise KeyError(x)
        return x * x

    results = []
    with pytest.raises(KeyError):
        for value in prefetch(slow_first, range(10), workers=3, ahead=4):
            results.append(value)
    assert results == [x * x for x in range(7)]


PARTS = {"box": (True, 0, False), "point": (False, 10, False), "noise_mask": (False, 0, True)}
"""Box, number of points and mask of each kind."""


def test_views_are_rebuilt_from_the_plan(training_set):
    data = TrainingSet(shards=training_set[0], prompts=training_set[1])
    assert len(data) == 14
    assert n_views(data) == 2
    kinds = set()
    for number in range(len(data)):
        for v in range(2):
            view = data.view(Item(number, v))
            kinds.add(view.prompt)
            assert view.image.shape == (128, 128, 3)
            assert view.mask.shape == (128, 128)
            ys, xs = np.nonzero(view.mask > 128)
            assert len(ys) >= 10
            given = view.given
            assert (given.box is not None, len(given.points), given.mask is not None) == PARTS[
                view.prompt
            ]
            if given.box is not None:
                np.testing.assert_array_equal(given.box, [xs.min(), ys.min(), xs.max(), ys.max()])
            assert all(view.mask[y, x] > 128 for x, y in given.points.astype(int))
            if given.mask is not None:
                assert given.mask.shape == (64, 64) and set(np.unique(given.mask)) <= {0, 255}
    assert kinds == set(PARTS)
    data.close()


def test_collate_scales_labels_and_prompts_group_by_their_parts(training_set):
    data = TrainingSet(shards=training_set[0], prompts=training_set[1])
    views = [data.view(Item(n, 0)) for n in range(3)]
    batch = collate(views)
    assert batch.image_B3SS.shape == (3, 3, 128, 128)
    assert batch.label_B1SS.min() >= 0 and batch.label_B1SS.max() <= 1
    np.testing.assert_allclose(batch.label_B1SS[1, 0].numpy() * 255, views[1].mask, atol=1e-4)
    groups = group(batch.given)
    assert sorted(row for rows in groups for row in rows) == [0, 1, 2]
    assert len(groups) == len(set(batch.prompts))
    with pytest.raises(ValueError, match="at least one"):
        collate([])
    data.close()


def test_missing_unpaired_and_damaged_folders(training_set, tmp_path):
    shards, prompts = training_set
    with pytest.raises(UserError, match=r"index\.json"):
        TrainingSet(shards=tmp_path, prompts=prompts)
    other = tmp_path / "prompts"
    shutil.copytree(prompts, other)
    text = (other / "index.json").read_text()
    (other / "index.json").write_text(text.replace("test_003", "test_xxx"))
    with pytest.raises(UserError, match="same samples"):
        TrainingSet(shards=shards, prompts=other)
    broken = tmp_path / "shards"
    shutil.copytree(shards, broken)
    (broken / "train-00001.tar").unlink()
    with pytest.raises(UserError, match="train-00001"):
        TrainingSet(shards=broken, prompts=prompts)
    data = bytearray((shards / "train-00001.tar").read_bytes())
    data[600:9000] = bytes(8400)
    (broken / "train-00001.tar").write_bytes(data)
    damaged = TrainingSet(shards=broken, prompts=prompts)
    with pytest.raises(UserError, match="test_00"):
        for number in range(5, 10):
            damaged.view(Item(number, 0))
    damaged.close()
