"""Training in real processes, one and two: killed at random steps, ended by SIGTERM, started by torchrun, hung."""

import random
import signal
import time

import pytest
import torch

from hqsam.model.build import build_model
from hqsam.training.train_run import TrainRun
from hqsam_base.errors import UserError
from tests import FULL
from tests.training.processes import Training, killed_again_and_again, weights
from tests.training.test_loop import BASE, options

KILLS, EPOCHS = (10, 12) if FULL else (3, 4)
SMALL = {"feed": "online", "views": "cycle", "batch_size": 2, "holdout": 0.0, "points": 64}
"""Little to do before the first step: seven steps an epoch."""


def spec_of(training_set, out, **changes):
    changes = SMALL | changes
    return TrainRun(
        shards=training_set[0],
        prompts=training_set[1],
        model=BASE,
        options=options(**changes),
        out=out,
        seed=0,
    )


def trained(training_set, out, size, **changes):
    """The weights of a run that nothing disturbed."""
    training = Training(spec_of(training_set, out, **changes), size)
    training.start()
    while training.wait_for(1):
        pass
    assert training.join() == [0] * size
    return weights(out)


@pytest.fixture(scope="module")
def uninterrupted(training_set, tmp_path_factory):
    """The weights of long runs by number of processes."""
    return {
        n: trained(training_set, tmp_path_factory.mktemp("whole") / "nano", n, epochs=EPOCHS)
        for n in (1, 2)
    }


@pytest.mark.parametrize("size", [1, 2])
def test_killed_at_random_steps_ends_with_the_same_bits(
    training_set, tmp_path, uninterrupted, size
):
    spec = spec_of(training_set, tmp_path / "nano", epochs=EPOCHS, save_every=2, save_every_s=0)
    kills = killed_again_and_again(spec, size, times=KILLS, rng=random.Random(size))
    assert kills == KILLS, "all of them in the middle of the run"
    assert weights(spec.out) == uninterrupted[size]
    assert not (spec.out / "last.pt").exists()


def test_two_processes_agree_with_one_up_to_their_loss_points(training_set, tmp_path):
    """The batches are the same; each process draws points of its own, which matter little when they are many."""
    import safetensors.torch

    one, two = (
        safetensors.torch.load(
            trained(training_set, tmp_path / f"{n}" / "nano", n, epochs=1, points=20_000)
        )
        for n in (1, 2)
    )
    assert any(not torch.equal(one[k], two[k]) for k in one)
    apart = torch.cat([(one[k] - two[k]).flatten() for k in one]).norm()
    fresh = build_model(BASE, seed=0).head.state_dict()
    moved = torch.cat([(one[k] - fresh[k]).flatten() for k in one]).norm()
    assert apart < 0.25 * moved


@pytest.mark.parametrize("size", [1, 2])
def test_sigterm_to_one_process_saves_and_ends_all(training_set, tmp_path, size):
    spec = spec_of(training_set, tmp_path / "nano", epochs=400)
    training = Training(spec, size)
    training.start()
    assert training.wait_for(3)
    begin = time.monotonic()
    training.signal(signal.SIGTERM, rank=size - 1)
    assert training.join() == [143] * size
    assert time.monotonic() - begin < 10
    saved = torch.load(spec.out / "last.pt", weights_only=True)
    assert saved["progress"]["epoch"] * 7 + saved["progress"]["step"] >= 3
    assert len(saved["progress"]["curve"]) == saved["progress"]["epoch"]
    assert len(saved["generators"]) == size
    assert not (spec.out / "meta.json").exists()


def test_a_run_is_not_taken_up_by_another_number_of_processes(training_set, tmp_path):
    from hqsam.training.loop import train

    spec = spec_of(training_set, tmp_path / "nano", epochs=400)
    training = Training(spec, 2)
    training.start()
    assert training.wait_for(1)
    training.signal(signal.SIGTERM)
    training.join()
    with pytest.raises(UserError, match=r"processes: 2 there, 1 now"):
        train(spec)
