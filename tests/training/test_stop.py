"""SIGTERM at any instant of a process on its own: the step or validation under way is given up, the state is saved."""

import os
import random
import signal
import threading
import time

import pytest
import torch

from hqsam.training import guard
from hqsam.training.results import BEST, MERGED
from hqsam.training.validate import Validation
from tests.training.test_loop import run

SMALL = {"feed": "online", "views": "cycle", "batch_size": 2, "points": 64, "epochs": 4}


@pytest.fixture(scope="module")
def whole(training_set, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "nano"
    torch.set_num_threads(1)
    run(training_set, out, **SMALL)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def outputs(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def sigterm_after(seconds):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    return timer


@pytest.fixture(autouse=True)
def outside_of_training():
    """A signal that comes once the steps are done reaches this handler, not the test process or what Ray put there."""
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    yield
    signal.signal(signal.SIGTERM, before)


def test_stopped_at_many_instants_ends_with_the_same_bytes(training_set, tmp_path, whole):
    """A timer that begins with the second step: the signal comes while views load, pass or are validated."""
    rng, out, stops = random.Random(4), tmp_path / "nano", 0
    for _ in range(40):
        timers = []

        def later(_done, _total, what, timers=timers):
            if what == "steps" and not timers:
                timers.append(sigterm_after(rng.random() * 0.4))

        before = signal.getsignal(signal.SIGTERM)
        try:
            run(training_set, out, progress=later, **SMALL)
            break
        except SystemExit as error:
            assert error.code == 143
            assert not (out / "meta.json").exists()
            stops += 1
        finally:
            for timer in timers:
                timer.cancel()
                timer.join()
            assert signal.getsignal(signal.SIGTERM) is before
    assert stops >= 3
    assert outputs(out) == whole


@pytest.mark.parametrize("place", ["step", "validation"])
def test_long_work_is_given_up_at_once(training_set, tmp_path, whole, monkeypatch, place):
    """A step of vit_b takes half a minute on a CPU, a validation of large pictures as long."""
    from hqsam.training.step import Step

    kind, name = (Step, "_loss") if place == "step" else (Validation, "scores")
    real, calls = getattr(kind, name), []

    def slow(*args):
        calls.append(1)
        if len(calls) == 2:
            sigterm_after(0.2)
            time.sleep(30)
        return real(*args)

    monkeypatch.setattr(kind, name, slow)
    begin = time.monotonic()
    with pytest.raises(SystemExit):
        run(training_set, tmp_path / "nano", **SMALL)
    assert time.monotonic() - begin < 10
    progress = torch.load(tmp_path / "nano" / "last.pt", weights_only=True)["progress"]
    assert (progress["epoch"], progress["step"]) == ((0, 1) if place == "step" else (1, 6))
    monkeypatch.setattr(kind, name, real)
    run(training_set, tmp_path / "nano", **SMALL)
    assert outputs(tmp_path / "nano") == whole


def test_a_stopped_run_with_every_option_ends_with_the_same_bytes(training_set, tmp_path):
    """Moving average, best epoch, merged file, micro-batches, bfloat16, saves by step: all of it is in `last.pt`."""
    every = SMALL | {
        "ema": 0.8,
        "best": True,
        "merged": True,
        "micro_batch": 1,
        "precision": "bf16",
        "save_every": 4,
        "epochs": 2,
    }
    whole, out = tmp_path / "whole" / "nano", tmp_path / "stopped" / "nano"
    run(training_set, whole, **every)
    for stop in (5, 11):

        def told(done, _total, what, stop=stop):
            if what == "steps" and done == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(SystemExit):
            run(training_set, out, progress=told, **every)
    run(training_set, out, **every)
    assert {BEST, MERGED} <= outputs(whole).keys()
    assert outputs(out) == outputs(whole)


def test_a_signal_is_noted_where_work_must_go_on():
    with guard.noting_sigterm() as stop:
        with stop.at_once(False):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        with pytest.raises(guard.Stopped), stop.at_once():
            pytest.fail("it has come before")


def test_what_an_earlier_run_left_is_not_passed_on(training_set, tmp_path):
    """The folder outlives a run (DVC: persist): files that this run was not asked for would be another one's weights."""
    out = tmp_path / "nano"
    short = SMALL | {"epochs": 1}
    run(training_set, out, best=True, merged=True, **short)
    assert {BEST, MERGED} <= outputs(out).keys()
    run(training_set, out, seed=1, **short)
    assert not {BEST, MERGED} & outputs(out).keys()


@pytest.mark.parametrize("junk", [b"", b"damaged", b"\x80\x02X\x01", b"PK\x03\x04" + bytes(40)])
def test_a_damaged_state_is_told(training_set, tmp_path, junk):
    from hqsam.training.loop import train
    from hqsam.training.train_run import TrainRun
    from tests.training.test_loop import BASE, options

    said, out = [], tmp_path / "nano"
    out.mkdir()
    (out / "last.pt").write_bytes(junk)
    wanted = options(**(SMALL | {"epochs": 1}))
    given = {
        "shards": training_set[0],
        "prompts": training_set[1],
        "model": BASE,
        "options": wanted,
    }

    def say(line: str) -> None:
        said.append(line)
        if "last.pt is damaged" in line:  # test_loop.py has the training that follows
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TrainRun(**given, out=out, seed=0), say=say)
    assert (out / "last.pt").read_bytes() == junk
