"""Checkpoint formats: told apart, loaded strictly, written back."""

import argparse
import gzip
import hashlib
import itertools
import json
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hqsam.errors import UserError
from hqsam.model import backbones, checkpoint, convert, hf_format, variants
from hqsam.model.build import build_model, build_sam_hq, load_head
from hqsam.model.load import load_any
from hqsam.model.options import ModelOptions
from tests.hqsam.models import authors_model, gap, picture, randomise, small_model, soften


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


# Some formats are safetensors always.
FILES = [(target, ".safetensors") for target in convert.TARGETS]
FILES += [(target, ".pth") for target in ("sam", "hq_sam", "hq_decoder", "sam_decoder")]


@pytest.mark.parametrize(("target", "suffix"), FILES)
def test_every_format_is_told_and_comes_back(tmp_path, nano, target, suffix):
    if target == "hf_sam_hq":
        convert.write(nano, tmp_path / "hf", target)
        path = tmp_path / "hf" / "model.safetensors"
    else:
        path = tmp_path / f"x{suffix}"
        convert.write(nano, path, target)
    summary = convert.inspect(path)
    assert summary.format == target
    has_head = target in ("hq_sam", "hq_decoder", "hq_head", "hf_sam_hq")
    assert ("hq_head" in summary.parameters) == has_head
    if target == "sam_decoder":
        return
    assert summary.backbone == "nano"
    assert summary.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    again = load_any(path)
    assert _same(again.sam, nano.sam)
    if has_head:
        assert _same(again.head, nano.head)


def test_the_authors_files_load(tmp_path):
    """What their `torch.save` writes: merged, and decoder alone as their training code does; also with wrappers."""
    model = small_model(seed=5)
    theirs = authors_model(model)
    merged, decoder = tmp_path / "sam_hq.pth", tmp_path / "epoch_11.pth"
    torch.save(theirs.state_dict(), merged)
    torch.save({f"module.{k}": v for k, v in theirs.mask_decoder.state_dict().items()}, decoder)
    wrapped = tmp_path / "wrapped.pth"
    torch.save({"model": theirs.state_dict(), "epoch": {}}, wrapped)
    for path, kind in ((merged, "hq_sam"), (decoder, "hq_decoder"), (wrapped, "hq_sam")):
        found = checkpoint.read(path)
        assert found.format == kind
        fresh = small_model(seed=6)
        if found.has_encoder:
            checkpoint.load_strict(fresh.sam, found.sam, path=path, what="SAM")
            checkpoint.load_strict(fresh.head, found.head, path=path, what="head")
            assert _same(fresh.sam, model.sam)
        else:
            with pytest.raises(UserError, match="another SAM"):
                load_head(fresh, path)
            fresh.sam.load_state_dict(model.sam.state_dict())
            load_head(fresh, path)
        assert _same(fresh.head, model.head)


@pytest.mark.parametrize(
    "names", ["{}", "module.{}", "_orig_mod.{}", "_orig_mod.module.{}", "module._orig_mod.{}"]
)
def test_a_models_own_state_dict_loads(tmp_path, nano, names):
    """What users of PyTorch save without asking, DistributedDataParallel and torch.compile included."""
    path = tmp_path / "mine.pt"
    torch.save({names.format(key): value for key, value in nano.state_dict().items()}, path)
    assert convert.inspect(path).format == "hq_sam"
    assert _same(load_any(path), nano)


@pytest.mark.parametrize("variant", sorted(set(variants.names()) - {variants.DEFAULT}))
def test_a_variants_own_state_dict_is_never_taken_for_another_system(tmp_path, variant):
    path = tmp_path / "mine.pt"
    torch.save(
        build_sam_hq("nano", backbones.bundled_weights("nano"), variant=variant).state_dict(), path
    )
    with pytest.raises(UserError, match="does not fit"):
        load_any(path)


def test_a_model_can_be_pickled(nano):
    """For processes that are spawned, and for Ray."""
    again = pickle.loads(pickle.dumps(nano))
    assert _same(again, nano)
    images = torch.rand(1, 3, nano.backbone.image_size, nano.backbone.image_size)
    with torch.no_grad():
        assert torch.equal(again.encode(images).early_BVHW, nano.encode(images).early_BVHW)


def test_hugging_face_gives_the_same_logits(tmp_path):
    """`SamHQModel` on our converted weights, and back.

    transformers 5.23 upscales the image embedding as it was *before* the two-way transformer, with
    rows and columns exchanged (`SamHQMaskDecoder.forward` drops the transformer's second output),
    so its masks are not HQ-SAM's with anybody's weights. The hook puts the right tensor in;
    everything else is theirs.
    """
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import SamHQModel

    model = small_model(seed=8)
    convert.write(model, tmp_path / "hf", "hf_sam_hq")
    theirs = SamHQModel.from_pretrained(tmp_path / "hf").eval()
    again = hf_format.to_published(theirs.state_dict())
    expected = convert.merged_state(model)
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[k], expected[k]) for k in expected)

    kept: dict[str, torch.Tensor] = {}
    decoder = theirs.mask_decoder
    decoder.transformer.register_forward_hook(lambda module, args, out: kept.update(keys=out[1]))
    decoder.upscale_conv1.register_forward_pre_hook(
        lambda module, args: (kept["keys"][:, 0].transpose(1, 2).reshape(args[0].shape),)
    )
    pixels = model.preprocess(torch.from_numpy(picture(128, 128)).permute(2, 0, 1)[None])
    boxes = torch.tensor([[10.0, 20, 100, 90], [30, 5, 60, 120]])
    points, labels = torch.tensor([[[50.0, 40], [100, 20]]]), torch.tensor([[1, 0]])
    # One prompt at a time: with several, theirs reshapes as if each were an image.
    cases = [
        ({"boxes_P4": boxes[n : n + 1]}, {"input_boxes": boxes[None, n : n + 1]}) for n in range(2)
    ]
    cases += [
        (
            {"points_PN2": points, "labels_PN": labels},
            {"input_points": points[None], "input_labels": labels[None]},
        )
    ]
    with torch.no_grad():
        encoded = model.encode(pixels)
        for (given, input_), only in itertools.product(cases, (False, True)):
            ours = model.decode_hq(encoded, model.embed_prompts(**given))
            found = theirs(
                pixel_values=pixels, **input_, multimask_output=False, hq_token_only=only
            )
            assert gap(found.pred_masks[0, 0], (ours.hq_P1hw if only else ours.sum_P1hw)[0]) < 1e-4
            assert gap(found.iou_scores[0, 0], ours.sam.iou_PK[0]) < 1e-4


def test_hugging_faces_plain_sam_loads(tmp_path, nano):
    """`SamModel` as transformers saves it, in nano's sizes; vanilla SAM's logits come out."""
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import SamConfig, SamModel

    sizes = convert.hugging_face_config(nano)
    parts = {name: value for name, value in sizes.items() if name.endswith("_config")}
    del parts["mask_decoder_config"]["vit_dim"]
    theirs = SamModel(SamConfig(**parts)).eval()
    randomise(theirs, 0)
    soften(theirs.mask_decoder)
    theirs.save_pretrained(tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    summary = convert.inspect(path)
    assert (summary.format, summary.backbone, summary.variant) == ("hf_sam", "nano", None)
    model = load_any(path)
    pixels = model.preprocess(torch.from_numpy(picture(128, 128)).permute(2, 0, 1)[None])
    boxes = torch.tensor([[10.0, 20, 100, 90]])
    with torch.no_grad():
        ours = model.decode_sam(model.encode(pixels), model.embed_prompts(boxes_P4=boxes))
        found = theirs(pixel_values=pixels, input_boxes=boxes[None], multimask_output=False)
    assert ours.logits_PKhw.abs().max() > 1
    assert gap(found.pred_masks[0], ours.logits_PKhw) < 1e-4
    assert gap(found.iou_scores[0], ours.iou_PK) < 1e-4


def test_names_are_told_by_the_keys_of_published_backbones():
    """Without building a 600 M model: the shapes of the deciding tensors."""
    sizes = {
        "vit_b": (768, 2, 64),
        "vit_l": (1024, 5, 64),
        "vit_h": (1280, 7, 64),
        "nano": (192, 1, 16),
    }
    for name, (width, block, side) in sizes.items():
        state = {
            "image_encoder.pos_embed": torch.empty(1, side, side, width),
            f"image_encoder.blocks.{block}.norm1.weight": torch.empty(width),
        }
        assert checkpoint.backbone_of(checkpoint.classify(Path("x"), state)) == name
    for name in backbones.names():
        b = backbones.load(name)
        head = {
            "hf_token.weight": torch.empty(1),
            "compress_vit_feat.0.weight": torch.empty(b.vit_dim, b.decoder_dim),
        }
        assert checkpoint.backbone_of(checkpoint.classify(Path("x"), head)) == name


def test_head_files_are_byte_deterministic(tmp_path, nano):
    digests = set()
    for n in range(3):
        checkpoint.save_head(
            tmp_path / f"{n}.safetensors",
            nano.head,
            metadata={"b": n * 0, "a": [1], "backbone": "nano"},
        )
        digests.add(checkpoint.sha256(tmp_path / f"{n}.safetensors"))
    assert len(digests) == 1
    found = checkpoint.read(tmp_path / "0.safetensors")
    assert found.metadata["a"] == [1]
    assert found.format == "hq_head"


def test_misfits_are_shown_in_a_table(tmp_path, nano):
    state = dict(nano.head.state_dict())
    state["hf_token.weight"] = torch.zeros(1, 5)
    state["extra"] = state.pop("hf_mlp.layers.0.bias")
    path = tmp_path / "bad.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    with pytest.raises(UserError) as error:
        load_head(build_sam_hq("nano", backbones.bundled_weights("nano")), path)
    lines = str(error.value).splitlines()
    assert any("hf_token.weight" in line and "1x128" in line and "1x5" in line for line in lines)
    assert any("hf_mlp.layers.0.bias" in line and line.rstrip().endswith("-") for line in lines)
    assert any("extra" in line for line in lines)
    assert "bad.safetensors" in str(error.value)


def test_bad_files_are_refused(tmp_path, nano):
    weights = backbones.bundled_weights("nano")
    empty, text, cut, other = (
        tmp_path / n for n in ("empty.pth", "text.pth", "cut.safetensors", "other.pth")
    )
    empty.write_bytes(b"")
    text.write_text("<html>quota exceeded</html>")
    cut.write_bytes(weights.read_bytes()[:5000])
    torch.save({"a": torch.ones(2)}, other)
    evil = tmp_path / "evil.pth"
    torch.save({"a": pytest.approx}, evil)
    numbers, note = tmp_path / "numbers.pth", tmp_path / "note.safetensors"
    torch.save({1: torch.ones(2)}, numbers)
    save_file({"a": torch.ones(1)}, note, metadata={"hqsam": "[1]"})
    (tmp_path / "folder").mkdir()
    for path, message in (
        (empty, "readable"),
        (text, "readable"),
        (cut, "readable"),
        (other, "none of the known"),
        (evil, "readable"),
        (tmp_path / "none.pth", "does not exist"),
        (numbers, "no dictionary"),
        (note, "not a JSON object"),
        (tmp_path / "folder", "none of hq_head.safetensors"),
    ):
        with pytest.raises(UserError, match=message) as error:
            checkpoint.read(path)
        assert path.name in str(error.value)
    checkpoint.save_head(tmp_path / "h.safetensors", nano.head, metadata={"backbone": "vit_b"})
    with pytest.raises(UserError, match="trained on vit_b"):
        load_head(nano, tmp_path / "h.safetensors")
    with pytest.raises(UserError, match="no image encoder"):
        build_model(ModelOptions(backbone="nano", checkpoint=tmp_path / "h.safetensors"))
    with pytest.raises(UserError, match="no HQ parameters"):
        load_head(nano, weights)
    with pytest.raises(UserError, match="nano, it does not fit vit_h"):
        build_model(ModelOptions(backbone="vit_h", checkpoint=weights))
    with pytest.raises(UserError, match="nano, vit_b"):
        build_sam_hq("vit_huge")


def test_weights_that_are_not_finite_are_refused(tmp_path, nano):
    """They load, and every mask is empty: the file is to blame, and the message names it."""
    path = tmp_path / "diverged.pth"
    for value in (float("nan"), float("-inf")):
        state = convert.merged_state(nano) | {
            "mask_decoder.hf_token.weight": torch.full((1, 128), value)
        }
        torch.save(state, path)
        with pytest.raises(UserError, match="not finite") as error:
            load_any(path)
        assert error.value.key == "hf_token.weight"
        assert str(path) in str(error.value)


def test_a_file_is_told_by_its_content_and_a_folder_by_what_is_in_it(tmp_path, nano):
    head, folder = tmp_path / "run" / "hq_head.safetensors", tmp_path / "hf"
    checkpoint.save_head(head, nano.head, metadata={"backbone": "nano"})
    renamed = tmp_path / "weights.bin"
    renamed.write_bytes(head.read_bytes())
    convert.write(nano, folder, "hf_sam_hq")
    for path, kind in ((head.parent, "hq_head"), (renamed, "hq_head"), (folder, "hf_sam_hq")):
        assert convert.inspect(path).format == kind
        assert _same(load_any(path).head, nano.head)
    assert checkpoint.sha256(folder) == checkpoint.sha256(folder / "model.safetensors")


def test_converting_loses_nothing(tmp_path, nano, capsys):
    from hqsam_pipelines.cli import run

    merged, theirs = tmp_path / "merged.pth", tmp_path / "thesis"
    convert.write(nano, merged, "hq_sam")
    theirs.mkdir()
    (theirs / "chapter.txt").write_text("years of work")
    digest = checkpoint.sha256(merged)
    for target, to, message in (
        (merged, "sam", "the input"),
        (theirs, "hf_sam_hq", "other files"),
        (theirs, "sam", "a folder"),
        (tmp_path / "hf.pth", "hf_sam_hq", "folder"),
        (merged / "x.pth", "sam", "cannot be written"),
    ):
        assert run(["checkpoint", "convert", str(merged), str(target), "--to", to]) == 1, (
            target,
            to,
        )
        assert message in capsys.readouterr().err
    assert checkpoint.sha256(merged) == digest
    assert (theirs / "chapter.txt").read_text() == "years of work"
    for _ in range(2):  # its own folder may be replaced
        assert (
            run(["checkpoint", "convert", str(merged), str(tmp_path / "hf"), "--to", "hf_sam_hq"])
            == 0
        )


def _saved(folder, value):
    path = folder / "x.pth"
    torch.save(value, path)
    return path


def test_what_trainers_wrap_around_a_model_comes_off(tmp_path, nano):
    """DataParallel, torch.compile, FSDP, Lightning, torch_em and own loops; numbers beside the weights."""
    plain, own = convert.merged_state(nano), nano.state_dict()
    prefixed = lambda prefix: {prefix + key: value for key, value in plain.items()}  # noqa: E731
    colours = {
        "pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1),
        "pixel_std": torch.tensor([58.395, 57.12, 57.375]),
    }
    extras = {
        "epoch": 3,
        "best": np.float64(0.5),
        "curve": np.arange(3.0),
        "args": argparse.Namespace(lr=1e-3, out=Path("runs")),
        "step": torch.tensor(7),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3}]},
    }
    encoder_only = {
        k.replace("image_encoder.", "image_encoder.module."): v for k, v in plain.items()
    }
    for found in (
        prefixed("module."),
        prefixed("module._orig_mod."),
        prefixed("_fsdp_wrapped_module.net.sam."),
        encoder_only,
        {**plain, **extras},
        {"state_dict": prefixed("model."), **extras},
        {"model_state": prefixed("sam."), **extras},
        {"state_dict": {"model": plain}},
        {"network": plain, **extras},
        {"model": {key: value.numpy() for key, value in plain.items()}, **extras},
        {**plain, **colours},
        {"model": {f"model.{key}": value for key, value in own.items()}},
        {"model": prefixed("sam.") | {f"sam.{k}": v / 255 for k, v in colours.items()}},
    ):
        assert _same(load_any(_saved(tmp_path, found)), nano), list(found)[:3]
    decoder = {k: v for k, v in plain.items() if k.startswith("mask_decoder.")}
    assert checkpoint.read(_saved(tmp_path, decoder)).format == "hq_decoder"


def test_a_file_that_cannot_be_told_apart_or_run_says_why(tmp_path, nano):
    plain = convert.merged_state(nano)
    for found, message in (
        ({"student": plain, "teacher": plain}, "several dictionaries of tensors: student, teacher"),
        ({**plain, "pixel_mean": torch.tensor([0.5, 0.5, 0.5])}, "SAM's is"),
        ({**plain, **{f"module.{k}": v for k, v in plain.items()}}, "same name"),
        ({"epoch": 3}, "no dictionary of tensors"),
        (
            {
                "state_dict": {f"model.{k}": v for k, v in plain.items()}
                | {"loss.weight": torch.ones(3)}
            },
            "a SAM lies below model. beside tensors below loss.",
        ),
        (
            {"state_dict": plain, "scheduler": torch.optim.lr_scheduler.StepLR},
            "holds a torch.optim.lr_scheduler.StepLR",
        ),
        ({"state_dict": plain, "config": pytest.approx}, "which needs code to load"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            checkpoint.read(_saved(tmp_path, found))
    program = tmp_path / "program.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(program)
    with pytest.raises(UserError, match="TorchScript"):
        checkpoint.read(program)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as file:
        file.writestr("sam.pth", b"weights")
    with pytest.raises(UserError, match=r"a zip, not a checkpoint(.|\n)*unpack it"):
        checkpoint.read(tmp_path / "packed.zip")
    (tmp_path / "packed.pth.gz").write_bytes(gzip.compress(b"weights"))
    with pytest.raises(UserError, match=r"unpack it \(gzip\)"):
        checkpoint.read(tmp_path / "packed.pth.gz")


def test_folders_of_transformers_in_parts_and_as_bin(tmp_path, nano):
    """As `save_pretrained(max_shard_size=...)` and older versions of transformers leave them."""
    convert.write(nano, tmp_path / "one", "hf_sam_hq")
    state = load_file(tmp_path / "one" / "model.safetensors")
    keys, shards = sorted(state), tmp_path / "shards"
    for name, save_part, ending in (
        ("shards", save_file, "safetensors"),
        ("bins", torch.save, "bin"),
    ):
        folder, stem = tmp_path / name, "model" if ending == "safetensors" else "pytorch_model"
        folder.mkdir()
        files = [f"{stem}-0000{n}-of-00003.{ending}" for n in (1, 2, 3)]
        places = {key: files[n % 3] for n, key in enumerate(keys)}
        for file in files:
            save_part({key: state[key] for key in keys if places[key] == file}, folder / file)
        (folder / f"{stem}.{ending}.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": places})
        )
    (tmp_path / "bin").mkdir()
    torch.save(state, tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "lightning").mkdir()
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in state.items()}},
        tmp_path / "lightning" / "epoch=1.ckpt",
    )
    (tmp_path / "lightning" / "._epoch=1.ckpt").write_bytes(b"Mac OS X")
    with pytest.raises(UserError, match="none of") as caught:
        load_any(tmp_path)
    assert f"such as {tmp_path / 'shards'}" in str(caught.value.cure)
    for name in ("shards", "bins", "bin", "lightning"):
        assert _same(load_any(tmp_path / name), nano), name
        assert convert.inspect(tmp_path / name).format == "hf_sam_hq"
    whole = checkpoint.sha256(shards)
    part = shards / "model-00002-of-00003.safetensors"
    save_file({key: value + 1 for key, value in load_file(part).items()}, part)
    assert checkpoint.sha256(shards) != whole
    with pytest.raises(UserError, match="one part") as caught:
        load_any(part)
    assert str(shards) in str(caught.value.cure)
    part.unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors is missing"):
        load_any(shards)
    (shards / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../one/model.safetensors"}}'
    )
    with pytest.raises(UserError, match="is missing"):
        load_any(shards)
    for text in ("[]", "[" * 100_000):
        (shards / "model.safetensors.index.json").write_text(text)
        with pytest.raises(UserError, match="not an index"):
            load_any(shards)


def test_a_published_name_must_have_the_published_content(tmp_path, nano):
    path = tmp_path / "sam_hq_vit_l.pth"
    convert.write(nano, path, "hq_sam")
    with pytest.raises(UserError, match="SHA-256"):
        convert.inspect(path)
    digest = "e1a6c385d62bf005ded91a54d5ec55c985cfc4103ef89c08d90f39f04934c343"
    assert checkpoint.check_published(tmp_path / "renamed.pth", digest) == "sam_hq_vit_l.pth"


def test_a_fresh_head_is_told(tmp_path, nano):
    """What it predicts is noise beside SAM's masks; a drop-in user would not see it."""
    plain, merged, head = (
        backbones.bundled_weights("nano"),
        tmp_path / "merged.pth",
        tmp_path / "hq_head.safetensors",
    )
    convert.write(nano, merged, "hq_sam")
    convert.write(nano, head, "hq_head")
    with pytest.warns(UserWarning, match="no HQ parameters"):
        build_sam_hq("nano", plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_sam_hq("nano")
        build_sam_hq("nano", merged)
        build_sam_hq("nano", plain, head=head)
        build_model(ModelOptions(backbone="nano", checkpoint=plain))


def test_a_fresh_head_is_seeded_and_leaves_the_global_state_alone():
    options = ModelOptions(backbone="nano", checkpoint=backbones.bundled_weights("nano"))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = (build_model(options, seed=s) for s in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert _same(one.head, same.head)
    assert not _same(one.head, other.head)


def test_checkpoint_command(tmp_path, nano, capsys):
    from hqsam_pipelines.cli import run

    head = tmp_path / "run" / "hq_head.safetensors"
    checkpoint.save_head(head, nano.head, metadata={"backbone": "nano"})
    merged = tmp_path / "merged.pth"
    assert run(["checkpoint", "convert", str(tmp_path / "run"), str(merged), "--to", "hq_sam"]) == 0
    assert run(["checkpoint", "inspect", str(merged), "--json", str(tmp_path / "i.json")]) == 0
    found = json.loads((tmp_path / "i.json").read_text())
    assert (found["format"], found["backbone"], found["variant"]) == ("hq_sam", "nano", "hq")
    assert found["parameters"]["hq_head"] == 169_984
    assert "169,984" in capsys.readouterr().out
    weights = str(backbones.bundled_weights("nano"))
    assert run(["checkpoint", "convert", weights, str(tmp_path / "y.pth"), "--to", "hq_sam"]) == 1
    assert "no HQ parameters" in capsys.readouterr().err
    assert run(["checkpoint", "convert", str(merged), str(tmp_path / "y.bin"), "--to", "sam"]) == 1
    assert (
        run(["checkpoint", "convert", str(merged), str(tmp_path / "y.pth"), "--to", "hq_head"]) == 1
    )
    assert "change the suffix" in capsys.readouterr().err
    assert not (tmp_path / "y.bin").exists()


def test_torchvision_is_repaired_only_when_broken():
    """In a fresh process, since an import cannot be undone: broken or not, it imports afterwards."""
    code = """
import importlib
try:
    importlib.import_module("torchvision")
    broken = False
except RuntimeError:
    broken = True
import sys
from hqsam.model._torchvision import ensure_torchvision
assert ensure_torchvision() is broken
assert ensure_torchvision() is broken
import segment_anything
from segment_anything.utils.transforms import ResizeLongestSide
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_model_needs_no_torchvision():
    code = """
import sys, hqsam.prediction.benchmark, hqsam.training.loop
from hqsam import build_sam_hq
build_sam_hq("nano")
assert not [m for m in sys.modules if m.startswith(("torchvision", "segment_anything.", "transformers", "timm"))]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_class_with_an_endless_name_is_refused(tmp_path: Path) -> None:
    """The message that torch makes of it takes six seconds for 25,000 characters, and hours for a million."""
    name = "a" * 1100
    (tmp_path / "x.pth").write_bytes(f"\x80\x02cm\n{name}\n.".encode("latin-1"))
    with pytest.raises(UserError, match="names a class with 1102 characters"):
        checkpoint.read(tmp_path / "x.pth")
