"""The event file: read by TensorBoard's own messages, the same bytes again, and readable while it grows."""

import csv
import struct

import pytest
from safetensors.torch import load_file

from hqsam.training import events
from hqsam.training.events import NAME, EventFile
from tests.training.test_loop import run

TAGS = {"train/loss", "train/loss_bce", "train/loss_dice", "train/lr"}


def read(path):
    """The events of a file as (step, {tag: value}), each record's check sums compared."""
    proto = pytest.importorskip(
        "tensorboardX.proto.event_pb2", reason="tensorboardX is not installed (extra `ray`)"
    )
    crc = pytest.importorskip("tensorboardX.crc32c")
    data, at, found = path.read_bytes(), 0, []

    def masked(part):
        value = crc.crc32c(part)
        return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        message = data[at + 12 : at + 12 + length]
        sums = struct.unpack_from("<I", data, at + 8) + struct.unpack_from(
            "<I", data, at + 12 + length
        )
        assert sums == (masked(data[at : at + 8]), masked(message))
        event = proto.Event.FromString(message)
        found.append(
            (event.step, {v.tag: v.simple_value for v in event.summary.value}, event.file_version)
        )
        at += 16 + length
    return found


def test_check_sum_of_the_standard():
    # RFC 3720, appendix B.4: CRC-32C of 32 bytes of zero is 0x8A9136AA.
    crc = 0x8A9136AA
    assert events.masked_crc(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_tensorboard_reads_what_a_training_wrote(training_set, tmp_path):
    run(training_set, tmp_path / "nano", epochs=2, lr_drop_epoch=1)
    found = read(tmp_path / "nano" / NAME)
    assert found[0] == (0, {}, "brain.Event:2")
    steps = [(step, values) for step, values, _ in found[1:] if "train/loss" in values]
    assert [step for step, _ in steps] == list(range(1, 9))
    assert all(values.keys() == TAGS for _, values in steps)
    assert [round(values["train/lr"], 6) for _, values in steps] == [0.001] * 4 + [0.0001] * 4
    epochs = [(step, values) for step, values, _ in found[1:] if "train/loss" not in values]
    rows = list(csv.DictReader((tmp_path / "nano" / "curves.csv").open()))
    assert [step for step, _ in epochs] == [4, 8]
    for (_, values), row in zip(epochs, rows, strict=True):
        assert {
            "validation/sam_mBIoU",
            "validation/hq_token_mBIoU",
            "validation/hq_sum_mIoU",
        } <= values.keys()
        assert all(
            value == pytest.approx(float(row[tag.removeprefix("validation/")]), rel=1e-4)
            for tag, value in values.items()
        )
        mean = (
            sum(
                v["train/loss"] for _, v in steps[4 * int(row["epoch"]) - 4 : 4 * int(row["epoch"])]
            )
            / 4
        )
        assert float(row["loss"]) == pytest.approx(mean, rel=1e-5)


def test_a_resumed_run_ends_with_the_same_bytes(training_set, tmp_path):
    run(training_set, tmp_path / "whole")

    def at_six(done, _total, what):
        if what == "steps" and done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(training_set, tmp_path / "nano", save_every=2, progress=at_six)
    assert len(read(tmp_path / "nano" / NAME)) == 1 + 6 + 1, (
        "steps and the first epoch, before the run has ended"
    )
    run(training_set, tmp_path / "nano", save_every=2)
    for name in (NAME, "curves.csv", "hq_head.safetensors"):
        assert (tmp_path / "nano" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert load_file(tmp_path / "nano" / "hq_head.safetensors")


def test_a_longer_file_of_another_run_is_cut(tmp_path):
    (tmp_path / NAME).write_bytes(bytes(10_000))
    with EventFile(tmp_path, [(1, {"a": 1.0})]) as file:
        file.add(2, {"a": float("nan"), "b/c": -2.5})
    assert (tmp_path / NAME).read_bytes() == events.header() + events.scalars(
        1, {"a": 1.0}
    ) + events.scalars(2, {"a": float("nan"), "b/c": -2.5})
    with EventFile(None, []) as silent:
        silent.add(1, {"a": 1.0})


def test_the_log_says_how_each_epoch_went_and_where_a_run_goes_on(training_set, tmp_path, capsys):
    def interrupted(done, _total, what):
        if (done, what) == (6, "steps"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(training_set, tmp_path / "nano", epochs=2, save_every=1, progress=interrupted)
    first = capsys.readouterr().err.splitlines()
    run(training_set, tmp_path / "nano", epochs=2, save_every=1)
    second = capsys.readouterr().err.splitlines()
    [header, *rows] = csv.reader((tmp_path / "nano" / "curves.csv").open())
    values = [dict(zip(header, map(float, row), strict=True)) for row in rows]
    said = [line for line in first + second if line.startswith("epoch")]
    for number, (line, row) in enumerate(zip(said, values, strict=True), start=1):
        assert line.startswith(f"epoch {number} of 2: lr 0.001, loss {row['loss']:.4f}")
        for name in ("sam", "hq_token", "hq_sum"):
            assert (
                f"{name} {100 * row[f'{name}_mIoU']:.1f} / {100 * row[f'{name}_mBIoU']:.1f}" in line
            )
    assert any(line.startswith("going on from last.pt: epoch 2, 1 of ") for line in second)
    assert not any(line.startswith("going on") for line in first)
