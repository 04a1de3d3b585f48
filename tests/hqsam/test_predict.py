"""The predict stage on a small benchmark folder."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from hqsam import systems
from hqsam.api.predictor import SamHQPredictor
from hqsam.errors import InputError, UserError
from hqsam.model import checkpoint, convert, precision
from hqsam.model.backbones import bundled_weights
from hqsam.model.build import build_model, build_sam_hq
from hqsam.model.options import ModelOptions
from hqsam.prediction import benchmark as stage
from hqsam.prediction import passes
from hqsam.prediction.benchmark import predict
from hqsam.prediction.options import PredictOptions
from hqsam.systems.sam_hq import SamHQ
from hqsam_base import atomic, rle
from hqsam_datasets.formats import manifest
from hqsam_datasets.formats.images import encode_png
from hqsam_datasets.formats.tar_writer import write_tar
from tests.hqsam.models import picture

SIZES = [(60, 90), (90, 60), (50, 50), (40, 120), (70, 70)]


def _prompt(key: str, number: int, kind: str, height: int, width: int, **values):
    row = dict.fromkeys(manifest.schema("prompts").names)
    return row | {
        "prompt_id": f"{key}-{number:02d}",
        "key": key,
        "prompt_set": f"{kind}s",
        "kind": kind,
        "height": height,
        "width": width,
        **values,
    }


def _write_benchmark(folder: Path) -> Path:
    """Five images of several sizes; boxes, points of different number, a coarse mask; the last image has no prompt."""
    folder.mkdir(parents=True)
    images, prompts, members = [], [], []
    for n, (height, width) in enumerate(SIZES):
        key = f"img_{n}"
        members.append((f"{key}.png", encode_png(picture(height, width, seed=n))))
        images.append(
            {
                "key": key,
                "member": f"{key}.png",
                "shard": "images-00000.tar",
                "height": height,
                "width": width,
                "image_id": n + 1,
                "video": None,
                "video_id": None,
                "frame": None,
                "pixel_digest": "0",
                "pdq": b"",
                "pdq_quality": 0,
                "tiles": b"",
            }
        )
        if n == 4:
            continue
        box = {"x0": 5.0, "y0": 6.0, "x1": width - 9.0, "y1": height - 4.0}
        mask = np.zeros((height, width), bool)
        mask[10:30, 12:35] = True
        prompts += [
            _prompt(key, 0, "box", height, width, **box),
            _prompt(key, 1, "point", height, width, points=[[20.0, 20.0]], labels=[1]),
            _prompt(
                key, 2, "point", height, width, points=[[20.0, 20.0], [3.0, 4.0]], labels=[1, 0]
            ),
            _prompt(key, 3, "mask", height, width, rle=rle.encode(mask)),
            _prompt(key, 4, "box", height, width, **(box | {"x0": 20.0, "x1": 20.0})),
        ]
    write_tar(folder / "images-00000.tar", members)
    manifest.write_rows(folder / "images.parquet", "images", images)
    manifest.write_rows(folder / "prompts.parquet", "prompts", prompts)
    atomic.write_json(
        folder / "index.json", {"version": 1, "benchmark": "toy", "digest": "d", "n_images": 5}
    )
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory, nano):
    root = tmp_path_factory.mktemp("predict")
    checkpoint.save_head(
        root / "m" / "hq_head.safetensors", nano.head, metadata={"backbone": "nano"}
    )
    return {
        "benchmark": _write_benchmark(root / "toy"),
        "model": ModelOptions(backbone="nano", checkpoint=bundled_weights("nano")),
        "head": root / "m",
    }


def _quiet(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total
    assert what


def _run(shared, out: Path, **options):
    return predict(
        **shared, options=PredictOptions(**{"threads": 1, **options}), out=out, progress=_quiet
    )


def _rows(folder: Path):
    return [
        row for part in sorted(folder.glob("part-*.parquet")) for row in manifest.read_rows(part)
    ]


def test_every_prompt_is_there_once_per_system(shared, tmp_path):
    summary = _run(shared, tmp_path / "toy-nano")
    rows = _rows(tmp_path / "toy-nano")
    assert len(rows) == 4 * 5 * 3
    assert len({(r["prompt_id"], r["system"]) for r in rows}) == len(rows)
    for row in rows:
        mask = rle.decode(row["rle"], height=row["height"], width=row["width"])
        assert row["mask_area"] == mask.sum()
    assert summary["systems"] == ["sam", "hq_token", "hq_sum"]
    assert (summary["model"], summary["n_prompts"], summary["n_images"]) == ("nano", 20, 5)
    assert json.loads((tmp_path / "toy-nano" / "predict.json").read_bytes()) == summary
    assert [p.name for p in tmp_path.iterdir()] == [
        "toy-nano"
    ]  # neither lock nor partial folder stays


def test_predictions_are_sam_hq_predictors(shared, tmp_path, nano):
    _run(shared, tmp_path / "toy-nano")
    rows = {(r["prompt_id"], r["system"]): r for r in _rows(tmp_path / "toy-nano")}
    predictor = SamHQPredictor(nano)
    predictor.set_image(picture(*SIZES[1], seed=1))
    for system in ("hq_token", "hq_sum"):
        for number, given in (
            (0, {"box": np.array([5.0, 6, 51, 86])}),
            (2, {"point_coords": np.array([[20, 20], [3, 4]]), "point_labels": np.array([1, 0])}),
        ):
            mask, iou, _ = predictor.predict(
                **given, multimask_output=False, hq_token_only=system == "hq_token"
            )
            row = rows[f"img_1-{number:02d}", system]
            found = rle.decode(row["rle"], height=row["height"], width=row["width"])
            assert (found != mask[0]).sum() <= 1
            assert row["iou_pred"] == pytest.approx(float(iou[0]), abs=1e-5)


def test_bytes_do_not_depend_on_batch_size(shared, tmp_path):
    first = _run(shared, tmp_path / "toy-nano")
    again = _run(shared, tmp_path / "again" / "toy-nano", batch_images=2)
    assert first["digest"] == again["digest"]
    assert first["arithmetic"] != again["arithmetic"], "which is in the protocol all the same"
    chunked = _run(
        shared,
        tmp_path / "chunked" / "toy-nano",
        batch_images=1,
        prompts_per_pass=1,
        images_per_part=2,
    )
    assert len(list((tmp_path / "chunked" / "toy-nano").glob("part-*.parquet"))) == 3
    assert chunked["digest"] != first["digest"]  # other parts, but the same masks
    for a, b in zip(
        _rows(tmp_path / "toy-nano"), _rows(tmp_path / "chunked" / "toy-nano"), strict=True
    ):
        assert a["iou_pred"] == pytest.approx(b["iou_pred"], abs=1e-5)
        masks = [rle.decode(r["rle"], height=r["height"], width=r["width"]) for r in (a, b)]
        assert (masks[0] != masks[1]).sum() <= 1


class _KilledError(Exception):
    pass


def test_a_killed_run_goes_on_after_its_last_part(shared, tmp_path, monkeypatch):
    out = tmp_path / "toy-nano"
    whole = _run(shared, tmp_path / "whole" / "toy-nano", images_per_part=2)
    read: list[int] = []
    killed: list[int] = []
    original = passes.Engine._read

    def counted(self, images, number):
        read.append(number)
        if number == 3 and not killed:
            killed.append(number)
            raise _KilledError
        return original(self, images, number)

    monkeypatch.setattr(passes.Engine, "_read", counted)
    with pytest.raises(_KilledError):
        _run(shared, out, images_per_part=2, batch_images=1)
    assert not out.exists()
    partial = tmp_path / ".toy-nano.partial"
    assert [p.name for p in sorted(partial.glob("part-*"))] == ["part-00000.parquet"]
    read.clear()
    summary = _run(shared, out, images_per_part=2, batch_images=1)
    assert 0 not in read and 1 not in read
    assert summary["digest"] == whole["digest"]
    assert not partial.exists()


def test_parts_of_other_inputs_are_not_kept(shared, tmp_path, monkeypatch):
    out = tmp_path / "toy-nano"
    monkeypatch.setattr(stage, "_summary", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _run(shared, out, resize="stretch")
    monkeypatch.undo()
    mine = _run(shared, out, resize="longest_side")
    assert (
        mine["digest"]
        == _run(shared, tmp_path / "fresh" / "toy-nano", resize="longest_side")["digest"]
    )
    assert (
        mine["digest"] != _run(shared, tmp_path / "other" / "toy-nano", resize="stretch")["digest"]
    )


def test_only_one_process_writes(shared, tmp_path):
    out = tmp_path / "toy-nano"
    entered, leave = threading.Event(), threading.Event()

    def slow(done, total, what):
        entered.set()
        leave.wait(30)

    job = threading.Thread(
        target=lambda: predict(**shared, options=PredictOptions(threads=1), out=out, progress=slow)
    )
    job.start()
    entered.wait(30)
    with pytest.raises(UserError, match="another process"):
        _run(shared, out)
    leave.set()
    job.join()
    assert (out / "predict.json").is_file()


def test_mask_prompts_reach_each_decoder_as_it_was_trained(shared, tmp_path):
    """`as_trained` is logits for SAM and 0/255 for HQ; the other settings give both the same."""
    found = {}
    for how in ("as_trained", "logits", "binary_255"):
        _run(shared, tmp_path / how / "toy-nano", mask_prompt=how)
        rows = _rows(tmp_path / how / "toy-nano")
        found[how] = {
            (r["prompt_id"], r["system"]): r["iou_pred"] for r in rows if r["prompt_set"] == "masks"
        }
    for key, value in found["as_trained"].items():
        assert value == found["logits" if key[1] == "sam" else "binary_255"][key]
    assert found["logits"] != found["binary_255"]


@pytest.mark.parametrize("variant", ["lora_encoder", "finetune_sam", "context_tokens"])
def test_the_baseline_is_sam_whatever_the_variant(shared, tmp_path, variant):
    """SAM's rows are those of the default model; the others are what the predictor gives for this variant."""
    model = build_sam_hq("nano", bundled_weights("nano"), variant=variant)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )
    convert.write(model, tmp_path / "hq_head.safetensors", "hq_head")
    changed = {"head": tmp_path, "model": shared["model"].model_copy(update={"variant": variant})}
    _run(shared | changed, tmp_path / "toy-variant")
    _run(shared, tmp_path / "toy-nano")
    tables = [
        {(r["prompt_id"], r["system"]): r for r in _rows(tmp_path / f"toy-{n}")}
        for n in ("variant", "nano")
    ]
    assert all(row == tables[1][key] for key, row in tables[0].items() if key[1] == "sam")
    assert any(
        row["rle"] != tables[1][key]["rle"] for key, row in tables[0].items() if key[1] != "sam"
    )
    predictor = SamHQPredictor(model)
    predictor.set_image(picture(*SIZES[1], seed=1))
    mask, _, _ = predictor.predict(box=np.array([5.0, 6, 51, 86]), multimask_output=False)
    found = rle.decode(tables[0]["img_1-00", "hq_sum"]["rle"], height=90, width=60)
    assert (found != mask[0]).sum() <= 1
    with pytest.raises(UserError, match=f"trained on {variant}, the model is hq"):
        _run(shared | {"head": tmp_path}, tmp_path / "toy-wrong")


def test_missing_inputs_are_named(shared, tmp_path):
    out = tmp_path / "toy-nano"
    cases = [
        ({"model": ModelOptions(backbone="nano", checkpoint=tmp_path / "no.pth")}, "no.pth"),
        ({"head": tmp_path / "nowhere"}, "hq_head.safetensors"),
        ({"benchmark": tmp_path / "nothing"}, "index.json"),
    ]
    for change, message in cases:
        with pytest.raises(UserError, match=message):
            _run(shared | change, out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x0": 50.0, "x1": 10.0}, "reversed"),
        ({"x0": None}, "missing"),
        ({"y1": float("inf")}, "finite"),
        ({"kind": "scribble"}, "scribble"),
        ({"kind": "point", "points": [[1.0, 2.0]], "labels": []}, "1 points and 0 labels"),
        ({"key": "img_9"}, "img_9"),
    ],
)
def test_bad_prompts_are_named(shared, tmp_path, change, message):
    folder = _write_benchmark(tmp_path / "bad")
    rows = manifest.read_rows(folder / "prompts.parquet")
    rows[0] |= change
    manifest.write_rows(folder / "prompts.parquet", "prompts", rows)
    with pytest.raises(UserError, match=message) as error:
        _run(shared | {"benchmark": folder}, tmp_path / "out" / "bad-nano")
    assert error.value.key in ("img_0", "img_9")
    assert not (tmp_path / "out" / "bad-nano").exists()


def test_damaged_image_is_named(shared, tmp_path):
    folder = _write_benchmark(tmp_path / "bad")
    (folder / "images-00000.tar").unlink()
    members = [(f"img_{n}.png", encode_png(picture(*SIZES[n], seed=n))) for n in range(5)]
    members[2] = ("img_2.png", members[2][1][:200])
    write_tar(folder / "images-00000.tar", members)
    with pytest.raises(UserError, match=r"img_2\.png") as error:
        _run(shared | {"benchmark": folder}, tmp_path / "out" / "bad-nano", images_per_part=1)
    assert error.value.key == "img_2" and error.value.cure
    assert "1 of 5 parts failed, the others are kept" in error.value.problem
    assert error.value.details == ("part 2: images img_2 to img_2",)
    kept = (tmp_path / "out" / ".bad-nano.partial").glob("part-*.parquet")
    assert sorted(path.name for path in kept) == [f"part-{n:05d}.parquet" for n in (0, 1, 3, 4)]
    (folder / "images-00000.tar").unlink()
    write_tar(
        folder / "images-00000.tar", [(name, encode_png(picture(33, 44))) for name, _ in members]
    )
    with pytest.raises(UserError, match="44 x 33"):
        _run(shared | {"benchmark": folder}, tmp_path / "out" / "bad-nano")


@pytest.mark.parametrize(("rate", "taken"), [(0.2, "float32"), (1.6, "bfloat16")])
def test_auto_takes_what_is_faster_here_and_says_so(
    rate, taken, shared, tmp_path, monkeypatch, capsys
):
    assert precision.bfloat16_rate(torch.device("cpu")) > 0
    monkeypatch.setattr(precision, "bfloat16_rate", lambda device: rate)
    summary = _run(shared, tmp_path / "toy-nano", precision="auto")
    assert summary["precision"] == taken
    assert f"computes in {taken}: " in capsys.readouterr().out
    _run(shared, tmp_path / "named" / "toy-nano", precision=taken)
    assert _rows(tmp_path / "named" / "toy-nano") == _rows(tmp_path / "toy-nano")


def test_8_bit_integers_move_masks_a_little_and_are_named(shared, tmp_path):
    exact, rounded = (tmp_path / name / "toy-nano" for name in ("float32", "int8"))
    _run(shared, exact, precision="float32")
    assert _run(shared, rounded, precision="int8")["precision"] == "int8"
    ious = []
    for a, b in zip(_rows(exact), _rows(rounded), strict=True):
        masks = [rle.decode(r["rle"], height=r["height"], width=r["width"]) for r in (a, b)]
        if (masks[0] | masks[1]).any():
            ious.append((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
    assert 0.9 < np.mean(ious) < 1


def test_8_bit_integers_are_refused_where_they_would_not_be_used(shared, tmp_path):
    toy = systems.Entry("s", systems.SystemOptions(kind="transformers"))
    with pytest.raises(UserError, match="kind transformers does not compute with 8-bit"):
        predict(
            **shared,
            options=PredictOptions(precision="int8"),
            out=tmp_path / "toy-nano",
            progress=_quiet,
            entries=(*systems.DEFAULT, toy),
        )
    model = build_model(ModelOptions(backbone="nano", variant="lora_encoder"))
    with pytest.raises(UserError, match="lora_encoder changes the image encoder"):
        SamHQ(model, PredictOptions(precision="int8", device="cpu"))
    with pytest.raises(UserError, match="8-bit integers are for CPUs"):
        precision.choose("int8", torch.device("cuda"))


@torch.inference_mode()
def test_an_8_bit_layer_rounds_weights_by_channel_and_inputs_by_call():
    layer = torch.nn.Linear(64, 48)
    layer.weight *= torch.logspace(-3, 2, 48)[
        :, None
    ]  # one scale for all would lose the small ones
    x = torch.randn(3, 5, 64)
    found, exact = precision.Int8Linear(layer)(x), layer(x)
    error = (found - exact).abs().amax((0, 1)) / (exact - layer.bias).abs().amax((0, 1))
    assert 0 < error.max() < 0.05


def test_options_are_checked():
    for wrong in (
        {"resize": "squash"},
        {"batch_images": 0},
        {"mask_prompt": "x"},
        {"unknown": 1},
        {"precision": "f4"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PredictOptions(**wrong)
    with pytest.raises(ValueError, match="vit_q"):
        ModelOptions(backbone="vit_q")


def test_refused_prompt_is_a_value_error():
    assert issubclass(InputError, ValueError)


def test_out_of_memory_halves_the_batch_and_says_so(shared, tmp_path, monkeypatch, capsys) -> None:
    """A stand-in for a small device: torch's own error for more than two images, or one prompt, at a time."""
    from hqsam.systems import sam_hq

    def small(call, limit):
        def limited(self, *given):
            if len(given[-1]) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return call(self, *given)

        return limited

    _run(shared, tmp_path / "plain" / "toy-m", batch_images=2, prompts_per_pass=1)
    for name, limit in (("encode", 2), ("decode", 1)):
        monkeypatch.setattr(sam_hq.SamHQ, name, small(getattr(sam_hq.SamHQ, name), limit))
    told = _run(shared, tmp_path / "out" / "toy-m", batch_images=4, prompts_per_pass=2)
    # The numbers, and what is said of them, are those of a run that asked for as much as fits.
    parts = [sorted((tmp_path / k / "toy-m").glob("part-*")) for k in ("plain", "out")]
    assert [p.read_bytes() for p in parts[0]] == [p.read_bytes() for p in parts[1]]
    assert told["arithmetic"] | {"threads": 1} == {
        "threads": 1,
        "batch_images": 2,
        "images_per_part": 64,
        "prompts_per_pass": 1,
    }
    assert not (tmp_path / "out" / "toy-m" / "halved.json").exists()
    said = capsys.readouterr().err
    assert said.count("out of memory with predict.batch_images = 4: 2 from here on") == 1
    assert said.count("out of memory with predict.prompts_per_pass = 2: 1 from here on") == 1
    monkeypatch.setattr(sam_hq.SamHQ, "decode", small(sam_hq.SamHQ.decode, 0))
    with pytest.raises(UserError, match="out of memory"):
        _run(shared, tmp_path / "none" / "toy-m")
