"""The systems of the paper's tables: what each trains, that exactly this trains, that it comes back from its file."""

import csv
import warnings
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
import torch

from hqsam.api.predictor import SamHQPredictor
from hqsam.errors import UserError
from hqsam.model import backbones, checkpoint, convert, variants
from hqsam.model.build import build_model, build_sam_hq, load_head
from hqsam.model.hq_sam import HQSam
from hqsam.model.load import load_any
from hqsam.model.options import ModelOptions
from hqsam.prediction.prompt import Prompt
from tests import REPOSITORY
from tests.hqsam.models import gap, picture, randomise, small_backbone

TOKEN = {"hf_token.weight"} | {
    f"hf_mlp.layers.{n}.{part}" for n in range(3) for part in ("weight", "bias")
}
EARLY, FINAL, MASK = (
    {f"{stem}.{n}.{part}" for n in (0, 1, 3) for part in ("weight", "bias")}
    for stem in ("compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
)
PYRAMID = {
    f"{stem}.{part}"
    for stem in ("lateral_final", "lateral_early", "lateral_mask", "output")
    for part in ("weight", "bias")
}
OUTPUT_TOKEN = {"output_token.weight"} | {
    f"output_mlp.layers.{n}.{p}" for n in range(3) for p in ("weight", "bias")
}

# Names of what trains; for variants that tune SAM, the test below derives them from SAM.
TRAINS: dict[str, set[str]] = {
    "hq": TOKEN | EARLY | FINAL | MASK,
    "hq_mask_feature": TOKEN,
    "hq_times_output": TOKEN,
    "hq_context_tokens": TOKEN | EARLY | FINAL | MASK | {"context_tokens.weight"},
    "context_tokens": {"context_tokens.weight"},
    "fusion_mask": TOKEN | MASK,
    "fusion_final": TOKEN | FINAL,
    "fusion_early": TOKEN | EARLY,
    "fusion_mask_final": TOKEN | MASK | FINAL,
    "fusion_mask_early": TOKEN | MASK | EARLY,
    "fusion_final_early": TOKEN | FINAL | EARLY,
    "fpn_fusion": TOKEN | PYRAMID,
    "finetune_output_token": OUTPUT_TOKEN,
    "encoder_adapter": {f"layers.{n}.{part}.weight" for n in range(5) for part in ("down", "up")},
    "lora_encoder": {f"layers.{n}.{part}.weight" for n in range(5) for part in ("a", "b")},
}
NAMES = variants.names()


def _model(name: str, *, random: bool = True) -> HQSam:
    """The pretrained miniature; a fresh adapter or copy changes nothing, so its numbers are stirred."""
    model = build_sam_hq("nano", backbones.bundled_weights("nano"), variant=name)
    if random and not name.startswith("finetune"):
        randomise(model.head, 1)
    elif random:
        _stir(model)
    return model


def _stir(model: HQSam) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter += (
                0.1
                * parameter.std(correction=0)
                * torch.randn(parameter.shape, generator=generator)
            )


def _sams_names(model: HQSam) -> set[str]:
    """Parameters of SAM that its single mask depends on."""
    unreached = (
        "mask_decoder.iou_prediction_head",
        *(f"mask_decoder.output_hypernetworks_mlps.{n}" for n in (1, 2, 3)),
    )
    return {name for name, _ in model.sam.named_parameters() if not name.startswith(unreached)}


def _expected_names(name: str, model: HQSam) -> set[str]:
    if name == "finetune_sam":
        return _sams_names(model)
    if name == "finetune_decoder":
        return {n for n in _sams_names(model) if n.startswith("mask_decoder.")}
    return TRAINS[name]


def _prompts(model: HQSam):
    """Box with mask, and points of which one pads: every parameter of the prompt encoder takes part in one of them."""
    side = model.backbone.mask_size
    mask = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[10.0, 20, 100, 90], [30, 5, 60, 120]])
    points, labels = torch.tensor([[[50.0, 40], [9, 9]]] * 2), torch.tensor([[1, 0], [1, -1]])
    return (
        model.embed_prompts(boxes_P4=boxes, masks_P1hw=mask),
        model.embed_prompts(boxes_P4=boxes),
        model.embed_prompts(points_PN2=points, labels_PN=labels),
    )


def _input(model: HQSam) -> torch.Tensor:
    return model.preprocess(torch.from_numpy(picture(128, 128)).permute(2, 0, 1)[None])


@torch.no_grad()
def _logits(model: HQSam) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the variant and of vanilla SAM."""
    encoded = model.encode(_input(model))
    prompts = _prompts(model)
    hq = torch.cat([model.decode_hq(encoded, p).hq_P1hw for p in prompts])
    return hq, torch.cat([model.decode_sam(encoded, p).logits_PKhw for p in prompts])


@pytest.fixture(scope="module")
def vanilla() -> torch.Tensor:
    return _logits(build_sam_hq("nano", backbones.bundled_weights("nano")))[1]


@pytest.mark.parametrize("name", NAMES)
def test_exactly_what_is_listed_trains(name):
    model = _model(name).train()
    before = {k: v.clone() for k, v in model.sam.state_dict().items()}
    trainable = model.trainable()
    assert set(trainable) == _expected_names(name, model)
    assert list(model.head.state_dict()) == list(
        trainable
    )  # a file holds what trains, and nothing else
    assert sum(p.numel() for p in trainable.values()) == _documented_counts()[name]["nano"]
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        f"head.{n}" for n in trainable
    }
    encoded = model.encode_hq(_input(model))
    sum(model.decode_hq(encoded, p).hq_P1hw.square().mean() for p in _prompts(model)).backward()
    idle = [n for n, p in trainable.items() if p.grad is None or not p.grad.abs().max() > 0]
    # A key bias shifts all logits of a query alike: SAM has these parameters, and no loss can move
    # them.
    assert [n for n in idle if not n.endswith("k_proj.bias")] == []
    assert all(p.grad is None for p in model.sam.parameters())
    torch.optim.SGD(trainable.values(), lr=0.1).step()
    assert all(torch.equal(v, before[k]) for k, v in model.sam.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_brings_back_the_same_logits(name, tmp_path, vanilla):
    model = _model(name)
    path = tmp_path / "hq_head.safetensors"
    convert.write(model, path, "hq_head")
    summary = convert.inspect(path)
    assert (summary.format, summary.variant, summary.backbone) == ("hq_head", name, "nano")
    assert summary.parameters == {"hq_head": sum(p.numel() for p in model.trainable().values())}
    again = load_any(path)
    assert again.variant == name
    (hq, sam), (hq_again, sam_again) = _logits(model), _logits(again)
    assert torch.equal(hq, hq_again)
    assert torch.equal(sam, sam_again)
    assert torch.equal(sam, vanilla)  # whatever trained, the baseline is SAM
    assert gap(hq, sam) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_predictor_takes_every_variant(name):
    """All interfaces; batched equals one by one."""
    predictor = SamHQPredictor(_model(name))
    predictor.set_image(picture(90, 130))
    boxes = np.array([[10.0, 10, 100, 80], [20, 5, 60, 60], [30, 30, 125, 85]])
    moved = torch.from_numpy(predictor.transform.apply_boxes(boxes, (90, 130))).float()
    for multimask in (False, True):
        together = predictor.predict_torch(None, None, moved, multimask_output=multimask)[2]
        alone = [predictor.predict(box=box, multimask_output=multimask)[2] for box in boxes]
        assert gap(together, np.stack(alone)) < 1e-5
    only = predictor.predict(box=boxes[0], multimask_output=False, hq_token_only=True)
    both = predictor.predict(box=boxes[0], multimask_output=False)
    # With a token of its own the default adds SAM's mask; where SAM's token is tuned there is one
    # mask only.
    [batch] = predictor.predict_batch([picture(90, 130)], [[Prompt(box=tuple(boxes[0]))]])
    assert gap(batch.low_res, both[2][0]) < 1e-5
    own_token = predictor.model.head.extra_tokens() is not None and name != "context_tokens"
    assert np.array_equal(only[2], both[2]) != own_token


def test_every_row_of_the_papers_ablations_has_a_file():
    """Tables 2, 3, 4 and 9; what is not a model of ours: SAM itself, a loss, two post-refinement networks."""
    table = (
        resources.files("hqsam_pipelines.report").joinpath("data", "paper_tables.csv").read_text()
    )
    rows = {row for name in NAMES for row in variants.load(name).paper}
    known = {f"{row['table']}: {row['system']}" for row in csv.DictReader(table.splitlines())}
    assert rows <= known
    wanted = {row for row in known if row.split(":")[0] in ("2", "3", "4", "9", "text-4.2")}
    other = (
        "SAM",
        "SAM + HQ-Output Token (Boundary Loss), SAM mask feature",
        "CascadePSP post-refinement",
        "CRM post-refinement",
    )
    assert wanted - rows == {f"{t}: {s}" for t in "2349" for s in other} & known


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_takes_every_variant(name):
    """Shallow stand-ins with the layouts of the plain ViT and of TinyViT; the sizes of the published ones below."""
    from hqsam.model.backbones.base import Backbone, DecoderSizes, assemble_sam
    from hqsam.model.tiny_vit import TinyViT

    def tiny():
        encoder = TinyViT(
            img_size=64,
            out_chans=32,
            widths=(16, 16, 32, 32),
            depths=(1, 1, 1, 1),
            heads=(1, 1, 2, 2),
            windows=(7, 7, 14, 7),
        )
        return assemble_sam(
            encoder, image_size=64, embedding_size=4, decoder=DecoderSizes(width=32, mlp_width=64)
        )

    light = Backbone(
        name="light",
        image_size=64,
        embedding_size=4,
        vit_dim=32,
        decoder_dim=32,
        early="layers.1",
        early_layout="BCHW",
        build=tiny,
    )
    for backbone in (light, small_backbone()):
        torch.manual_seed(0)
        model = HQSam(
            backbone=backbone, sam=backbone.build(), head=variants.build(name, backbone)
        ).eval()
        assert model.head.variant == name
        model.train()
        side = backbone.image_size
        encoded = model.encode(torch.randn(2, 3, side, side))
        prompts = model.embed_prompts(boxes_P4=torch.tensor([[2.0, 3, 40, 50], [8, 8, 30, 60]]))
        masks = model.decode_hq(encoded, prompts, multimask=True)
        assert masks.sum_P1hw.shape == (2, 1, backbone.mask_size, backbone.mask_size)
        assert bool(masks.hq_P1hw.isfinite().all())


def _documented_counts() -> dict[str, dict[str, int]]:
    """Variant to backbone to count, from the table of docs/model.md."""
    lines = (REPOSITORY / "docs" / "model.md").read_text().splitlines()
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ")
    ]
    start = next(n for n, row in enumerate(rows) if row[0] == "variant")
    stop = next(n for n, row in enumerate(rows) if row[0] == "what")
    names = rows[start][1:-1]
    return {
        row[0]: dict(zip(names, (int(c.replace(",", "")) for c in row[1:-1]), strict=True))
        for row in rows[start + 2 : stop]
    }


def test_parameter_counts_on_every_backbone():
    """Those of the documented table; the models exist in shape only."""
    documented = _documented_counts()
    assert sorted(documented) == NAMES
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # initialising a tensor without memory does nothing
        for name in backbones.names():
            backbone = backbones.load(name)
            sam = backbone.build()
            for variant in NAMES:
                head = variants.build(variant, backbone)
                head.attach(sam)
                assert sum(p.numel() for p in head.parameters()) == documented[variant][name], (
                    variant,
                    name,
                )
    # The paper's Tables 1 and 9, in MiB of float32.
    for variant, mib in (("lora_encoder", 1.5), ("encoder_adapter", 12.0), ("hq", 5.1)):
        assert round(4 * documented[variant]["vit_l"] / 2**20, 1) == mib


@pytest.mark.parametrize(
    "name",
    [
        "finetune_output_token",
        "finetune_decoder",
        "finetune_sam",
        "lora_encoder",
        "encoder_adapter",
    ],
)
def test_a_fresh_tuning_starts_as_sam(name, vanilla):
    hq, sam = _logits(_model(name, random=False))
    assert gap(hq, sam) < 1e-6
    assert torch.equal(sam, vanilla)


def test_fine_tuned_parts_are_copied_from_the_loaded_sam():
    """Not from the random weights that were there before."""
    for name in ("finetune_sam", "finetune_decoder"):
        model = _model(name, random=False)
        own = model.sam.state_dict()
        assert all(torch.equal(p, own[key]) for key, p in model.trainable().items())


def test_lora_is_pefts():
    """The same matrices in `peft`'s own LoRA layers give the same image embedding."""
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()  # peft imports transformers, which imports it
    import peft

    model = _model("lora_encoder")
    base = build_sam_hq("nano", backbones.bundled_weights("nano"))
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=["qkv"])
    encoder = peft.inject_adapter_in_model(config, base.sam.image_encoder).eval()
    with torch.no_grad():
        for layer, block in zip(model.head.layers, encoder.blocks, strict=True):
            block.attn.qkv.lora_A["default"].weight.copy_(layer.a.weight)
            block.attn.qkv.lora_B["default"].weight.copy_(layer.b.weight)
        found = model.encode(_input(model))
        expected = encoder(_input(model))
    assert gap(found.for_hq.final_BCHW, expected) < 1e-5
    assert gap(found.final_BCHW, expected) > 1e-3


def test_a_variant_is_seeded_and_chosen_by_name():
    options = ModelOptions(
        backbone="nano", checkpoint=backbones.bundled_weights("nano"), variant="lora_encoder"
    )
    one, same, other = (build_model(options, seed=seed).trainable() for seed in (3, 3, 4))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["layers.0.a.weight"], other["layers.0.a.weight"])
    with pytest.raises(UserError, match="fpn_fusion"):
        build_sam_hq("nano", variant="fpn")
    with pytest.raises(ValueError, match="fpn_fusion"):
        ModelOptions(backbone="nano", variant="fpn")


def test_the_head_of_another_variant_is_refused(tmp_path):
    path = tmp_path / "hq_head.safetensors"
    convert.write(_model("fusion_mask"), path, "hq_head")
    with pytest.raises(UserError, match="trained on fusion_mask, the model is hq"):
        load_head(_model("hq"), path)
    published = tmp_path / "epoch_11.pth"
    convert.write(_model("hq"), published, "hq_decoder")
    with pytest.raises(UserError, match="trained on hq, the model is fpn_fusion"):
        load_head(_model("fpn_fusion"), published)
    with pytest.raises(UserError, match="no place for the variant fpn_fusion"):
        convert.write(_model("fpn_fusion"), tmp_path / "merged.pth", "hq_sam")
    assert not (tmp_path / "merged.pth").exists()


def test_a_head_of_another_sam_file_warns(tmp_path):
    path, base = tmp_path / "hq_head.safetensors", backbones.bundled_weights("nano")
    model = _model("hq")
    for noted in (checkpoint.sha256(base), "0" * 64):
        checkpoint.save_head(
            path, model.head, metadata={"backbone": "nano", "variant": "hq", "base_sha256": noted}
        )
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            load_any(path)
        assert [("trained on the SAM file" in str(w.message)) for w in found] == [
            True
        ] * noted.startswith("0" * 64)


@torch.no_grad()
def test_a_changed_encoder_encodes_twice(nano):
    model = _model("lora_encoder")
    encoded = model.encode(_input(model))
    assert encoded.hq is not None
    assert torch.equal(encoded.final_BCHW, nano.encode(_input(nano)).final_BCHW)
    assert torch.equal(encoded[0:1].for_hq.final_BCHW, model.encode_hq(_input(model)).final_BCHW)
    assert nano.encode(_input(nano)).hq is None
    without = replace(encoded, hq=None)
    [prompts, *_] = _prompts(model)
    assert (
        gap(model.decode_hq(encoded, prompts).hq_P1hw, model.decode_hq(without, prompts).hq_P1hw)
        > 1e-3
    )


def test_head_files_of_the_default_did_not_change(tmp_path):
    """Byte for byte what `hq_head.safetensors` was before there were variants."""
    head = variants.build("hq", backbones.load("nano"))
    with torch.no_grad():
        for number, parameter in enumerate(head.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view(parameter.shape) % 251 + number)
    path = tmp_path / "h.safetensors"
    checkpoint.save_head(path, head, metadata={"backbone": "nano", "variant": "hq"})
    assert (
        checkpoint.sha256(path)
        == "434b8c86b120ab83076f42c031b6e58ba6923f766dfc9524509005906fc40bf9"
    )
