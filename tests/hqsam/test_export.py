"""ONNX files against PyTorch, through onnxruntime."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hqsam.api.predictor import SamHQPredictor
from hqsam.api.transforms import ResizeLongestSide
from hqsam.errors import UserError
from hqsam.export import onnx_files as export
from hqsam.export.check import (
    CASES,
    PromptCase,
    compare_case,
    compare_decoder,
    compare_encoder,
    onnx_inputs,
    random_features,
    session,
)
from hqsam.export.onnx_files import export_onnx, load_for_export
from hqsam.export.parts import DecoderOptions, decoder_inputs, upscale
from hqsam.model import backbones, checkpoint
from hqsam.model.backbones.base import vit_backbone
from hqsam.model.build import build_sam_hq
from hqsam.model.convert import write
from hqsam_pipelines import cli
from tests import FULL
from tests.hqsam.models import picture, small_model

TOLERANCE = 1e-4


def calm_model(backbone, seed=0):
    """Random weights whose decoder does not turn rounding into other masks, as trained ones do not.

    With attention as sharp as random projections make it, a change of the features by 1e-7 moves a
    logit by 0.1.
    """
    model = small_model(backbone, seed=seed)
    with torch.no_grad():
        for name, parameter in model.sam.mask_decoder.named_parameters():
            if "q_proj.weight" in name:
                parameter *= 0.1
    return model


@pytest.fixture(scope="module")
def merged(tmp_path_factory, nano):
    path = tmp_path_factory.mktemp("export") / "nano.pth"
    write(nano, path, "hq_sam")
    return path


@pytest.fixture(scope="module")
def files(merged):
    """nano's two files, written by the command."""
    out = merged.parent / "onnx"
    words = [
        "export",
        "onnx",
        "--checkpoint",
        str(merged),
        "--out",
        str(out),
        "--json",
        str(out.parent / "out.json"),
    ]
    assert cli.run(words) == 0
    return out


def test_command_writes_both_files_and_says_how_far_they_are_off(files):
    assert sorted(p.name for p in files.iterdir()) == [
        "nano_decoder_hq_sum.onnx",
        "nano_encoder.onnx",
    ]
    said = json.loads((files.parent / "out.json").read_text())
    assert [row["file"] for row in said["files"]] == [
        "nano_encoder.onnx",
        "nano_decoder_hq_sum.onnx",
    ]
    assert all(0 < row["largest_difference"] < TOLERANCE for row in said["files"])
    assert all((files / row["file"]).stat().st_size == row["bytes"] for row in said["files"])


def test_the_check_sees_another_models_file(files, nano):
    other = calm_model(nano.backbone)
    assert compare_encoder(nano, files / "nano_encoder.onnx").share < TOLERANCE
    assert compare_encoder(other, files / "nano_encoder.onnx").share > 0.1
    assert compare_decoder(other, files / "nano_decoder_hq_sum.onnx", DecoderOptions()).share > 0.1


def test_encoder_takes_any_number_of_images(files, nano):
    images = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = nano.encode(images)
    final, early = session(files / "nano_encoder.onnx").run(None, {"image": images.numpy()})
    assert np.abs(final - expected.final_BCHW.numpy()).max() < TOLERANCE
    assert np.abs(early - expected.early_BVHW.numpy()).max() < TOLERANCE


def test_files_used_as_documented_give_the_predictors_masks(files, nano):
    image, boxes = picture(70, 100), np.array([[20, 10, 80, 60], [5, 5, 50, 65]], np.float32)
    encoder = session(files / "nano_encoder.onnx")
    about = json.loads(encoder.get_modelmeta().custom_metadata_map[export.METADATA])
    side = about["image_size"]
    resized = ResizeLongestSide(side).apply_image(image).transpose(2, 0, 1).astype(np.float32)
    scale = np.float32([resized.shape[2] / 100, resized.shape[1] / 70])
    mean, std = (np.float32(about[name])[:, None, None] for name in ("pixel_mean", "pixel_std"))
    padded = np.zeros((1, 3, side, side), np.float32)
    padded[0, :, : resized.shape[1], : resized.shape[2]] = (resized - mean) / std
    final, early = encoder.run(None, {"image": padded})
    masks, iou, _ = session(files / "nano_decoder_hq_sum.onnx").run(
        None,
        {
            "image_embeddings": final,
            "early_features": early,
            "orig_im_size": np.float32([70, 100]),
            "point_coords": boxes.reshape(-1, 2, 2) * scale,
            "point_labels": np.float32([[2, 3], [2, 3]]),
            "mask_input": np.zeros((2, 1, 64, 64), np.float32),
            "has_mask_input": np.zeros(2, np.float32),
        },
    )
    predictor = SamHQPredictor(nano)
    predictor.set_image(image)
    for box, mask, score in zip(boxes, masks, iou, strict=True):
        expected, expected_iou, _ = predictor.predict(box=box, multimask_output=False)
        assert expected.any() and ((mask > 0) != expected).sum() <= 1
        assert score == pytest.approx(expected_iou, abs=1e-4)


def test_decoder_takes_many_prompts_and_refuses_unknown_labels(files, nano):
    runtime, encoded = session(files / "nano_decoder_hq_sum.onnx"), random_features(nano)
    points, labels = torch.rand(40, 7, 2) * 128, torch.ones(40, 7)
    feeds = onnx_inputs(encoded, 64, (50, 70), points_PN2=points, labels_PN=labels)
    given = {name: feeds[name] for name in decoder_inputs(DecoderOptions())}
    masks, iou, low = runtime.run(None, given)
    assert (masks.shape, iou.shape, low.shape) == ((40, 1, 50, 70), (40, 1), (40, 1, 64, 64))
    for wrong in (-2, 4):
        with pytest.raises(Exception, match=r"invalid index|out of"):
            runtime.run(None, given | {"point_labels": np.full_like(given["point_labels"], wrong)})


def test_file_says_how_to_prepare_its_inputs(files, nano):
    props = session(files / "nano_encoder.onnx").get_modelmeta().custom_metadata_map
    said = json.loads(props[export.METADATA])
    assert (said["backbone"], said["part"], said["image_size"]) == ("nano", "encoder", 128)
    assert said["pixel_mean"] == pytest.approx(nano.sam.pixel_mean.flatten().tolist())


def test_cases_cover_every_kind_of_prompt():
    kinds = {(case.points > 0, case.boxes, case.masks) for case in CASES}
    assert {
        (False, True, False),
        (True, False, False),
        (True, True, True),
        (False, False, True),
    } <= kinds
    assert {case.prompts == 1 for case in CASES} == {True, False}


# (width, heads, depth) of the published ViTs.
VITS = {"vit_b": (768, 12, 12), "vit_l": (1024, 16, 24), "vit_h": (1280, 16, 32)}


def shortened(name, *, depth, image_size=1024):
    """A published ViT's widths with fewer blocks, the last of them with global attention."""
    width, heads, _ = VITS[name]
    blocks = (depth - 1,)
    return vit_backbone(
        name, width=width, depth=depth, heads=heads, global_blocks=blocks, image_size=image_size
    )


def takes_any_number_of_prompts(model, path):
    runtime, encoded = session(path), random_features(model)
    for prompts in (1, 7, 64):
        case = PromptCase(points=2, boxes=True, masks=False, prompts=prompts, size=(300, 451))
        found = compare_case(model, runtime, encoded, case, DecoderOptions(), seed=prompts)
        assert found.scale > 0.5, "logits that say something"
        assert found.share < TOLERANCE, prompts


def test_hq_decoder_takes_any_number_of_prompts(files, nano):
    takes_any_number_of_prompts(nano, files / "nano_decoder_hq_sum.onnx")


@pytest.mark.full(
    "of its encoder a decoder sees the sizes of two features, and every export checks its own file"
)
@pytest.mark.parametrize("name", ["vit_tiny", *VITS])
def test_hq_decoder_of_every_backbone_takes_any_number_of_prompts(tmp_path, name):
    model = calm_model(shortened(name, depth=1) if name in VITS else backbones.load(name))
    [file] = export_onnx(model, tmp_path, parts=["decoder"])
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}_decoder_hq_sum.onnx"]
    assert file.difference.share < TOLERANCE
    takes_any_number_of_prompts(model, file.path)


@pytest.mark.full(
    "tracing its many layers takes a quarter of a minute, and every export checks its own file"
)
def test_light_hq_sams_encoder_at_full_size(tmp_path):
    [file] = export_onnx(calm_model(backbones.load("vit_tiny")), tmp_path, parts=["encoder"])
    assert file.path.name == "vit_tiny_encoder.onnx"
    assert file.difference.share < TOLERANCE


WIDER = pytest.mark.full("the blocks of `TWO_BLOCKS` below, and more of them, in other widths")


@pytest.mark.timeout(1800 if FULL else 300)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=WIDER) for name in ("vit_b", "vit_l", "vit_h")]
)
def test_encoder_of_every_vit(tmp_path, name):
    """A block with global attention at a published width behind one with windows that need padding.

    `make test-all` takes the published depth and size: 7 GB of memory and minutes for ViT-L, 10 GB
    for ViT-H.
    """
    model = small_model(backbones.load(name) if FULL else shortened(name, depth=2, image_size=256))
    [file] = export_onnx(model, tmp_path, parts=["encoder"])
    assert file.difference.share < TOLERANCE
    assert file.path.with_name(f"{name}_encoder.onnx.data").exists() == (FULL and name == "vit_h")


@pytest.mark.full(
    "the decoder's other options; tracing takes seconds, and every export checks its own file"
)
def test_vanilla_sam_of_vit_b_with_three_masks_at_low_resolution(tmp_path):
    model = calm_model(
        vit_backbone("vit_b", width=768, depth=1, heads=12, global_blocks=(0,), image_size=256)
    )
    options = DecoderOptions("sam", multimask=True, low_res_only=True)
    [file] = export_onnx(model, tmp_path, parts=["decoder"], options=options)
    assert file.path.name == "vit_b_decoder_sam_multimask_low_res.onnx"
    assert file.difference.share < TOLERANCE
    inputs = {value.name for value in session(file.path).get_inputs()}
    assert inputs == {
        "image_embeddings",
        "point_coords",
        "point_labels",
        "mask_input",
        "has_mask_input",
    }


@pytest.mark.parametrize("size", [(300, 451), (97, 64), (1, 500), (1024, 1024), (3000, 17)])
def test_upscaling_equals_postprocess_masks(nano, size):
    from hqsam.model.preprocess import Frame

    low = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = nano.sam.postprocess_masks(low, Frame(*size, 128).resized, size)
    assert (
        upscale(low, torch.tensor(size, dtype=torch.float32), 128) - expected
    ).abs().max() < 1e-5


# Windows that need padding, then global attention: what every published ViT is made of.
TWO_BLOCKS = vit_backbone(
    "one", width=64, depth=2, heads=2, global_blocks=(1,), image_size=128, window_size=5
)


@pytest.mark.full("two exports; only ViT-H's encoder is that large")
def test_a_large_part_keeps_its_weights_beside_the_file(tmp_path, monkeypatch):
    """The part's own weights count, not its model's; and whatever was there before is replaced as a whole."""
    model, other, path = (
        calm_model(TWO_BLOCKS),
        calm_model(TWO_BLOCKS, seed=1),
        tmp_path / "one_encoder.onnx",
    )
    monkeypatch.setattr(export, "_LARGEST_FILE", 0)
    [large] = export_onnx(other, tmp_path, parts=["encoder"])
    names = ["one_encoder.onnx", "one_encoder.onnx.data"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert large.size == sum((tmp_path / name).stat().st_size for name in names)
    assert compare_encoder(other, path).share < TOLERANCE
    monkeypatch.setattr(export, "_LARGEST_FILE", 5_000_000)
    [small] = export_onnx(model, tmp_path, parts=["encoder"])
    whole = sum(parameter.nbytes for parameter in model.parameters())
    assert small.size < 5_000_000 < whole
    assert [p.name for p in tmp_path.iterdir()] == names[:1]  # no weights without their file
    assert compare_encoder(model, path).share < TOLERANCE


def test_an_export_killed_between_its_two_files_leaves_no_wrong_one(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_LARGEST_FILE", 0)
    target = tmp_path / "one_encoder.onnx"
    for name in (target.name, f"{target.name}.data"):
        (tmp_path / name).write_bytes(b"of an earlier export")
    rename = Path.replace

    def killed(self, to):
        if Path(to) == target:
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(small_model(TWO_BLOCKS, seed=1), tmp_path, parts=["encoder"])
    assert not target.exists()


def test_a_file_that_differs_never_appears(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    model = small_model(TWO_BLOCKS)
    with pytest.raises(UserError, match="differs from PyTorch"):
        export_onnx(model, tmp_path / "out", parts=["encoder"])
    assert list((tmp_path / "out").iterdir()) == []


def test_hq_output_needs_hq_parameters(tmp_path, nano):
    plain = backbones.bundled_weights("nano")
    with pytest.raises(UserError, match="no HQ parameters"):
        load_for_export(plain, head=None, backbone=None, needs_hq=True)
    assert load_for_export(plain, head=None, backbone=None, needs_hq=False).backbone.name == "nano"
    head = tmp_path / "hq_head.safetensors"
    checkpoint.save_head(head, nano.head, metadata={"backbone": "nano"})
    loaded = load_for_export(plain, head=head, backbone=None, needs_hq=True)
    assert torch.equal(loaded.head.hf_token.weight, nano.head.hf_token.weight)


def test_another_variant_is_refused(tmp_path):
    model = build_sam_hq("nano", variant="hq_mask_feature")
    with pytest.raises(UserError, match="hq_mask_feature"):
        export_onnx(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_arguments_are_one_clear_line(tmp_path, merged, capsys):
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert (
        cli.run(
            ["export", "onnx", "--checkpoint", str(tmp_path / "none.pth"), "--out", str(tmp_path)]
        )
        == 1
    )
    assert cli.run(["export", "onnx", "--checkpoint", str(merged), "--out", str(occupied)]) == 1
    assert (
        cli.run(
            [
                "export",
                "onnx",
                "--checkpoint",
                str(merged),
                "--out",
                str(tmp_path),
                "--part",
                "neck",
            ]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "does not exist" in said and str(occupied) in said and "neck" in said
