"""Our model against `segment-anything-hq` (the authors' package) and `segment-anything`: same weights and inputs."""

import itertools

import numpy as np
import pytest
import torch

from hqsam.api.predictor import SamHQPredictor
from hqsam.model.convert import merged_state
from hqsam.model.hq_decoder import HQHead
from tests.hqsam.models import (
    KINDS,
    authors_model,
    authors_package,
    gap,
    picture,
    prompt_tensors,
    randomise,
    small_model,
)

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def theirs(nano):
    return authors_model(nano)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 16])
def test_logits_equal_the_authors(nano, theirs, kind, count):
    ours, reference = SamHQPredictor(nano), authors_package().SamPredictor(theirs)
    image = picture(150, 256, seed=count)
    ours.set_image(image)
    reference.set_image(image)
    given = prompt_tensors(kind, count, nano.backbone, ours.input_size)
    for multimask, only in itertools.product((False, True), (False, True)):
        options = {"multimask_output": multimask, "hq_token_only": only, "return_logits": True}
        found = ours.predict_torch(**given, **options)
        expected = reference.predict_torch(**given, **options)
        assert expected[2].abs().max() > 0.5
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            assert (a - b).abs().max() < TOLERANCE


@pytest.mark.parametrize("size", [(256, 256), (100, 300), (311, 97), (40, 40), (900, 600)])
def test_predict_equals_the_authors_for_any_shape(nano, theirs, size):
    ours, reference = SamHQPredictor(nano), authors_package().SamPredictor(theirs)
    image = picture(*size)
    box = np.array([0.1 * size[1], 0.2 * size[0], 0.8 * size[1], 0.9 * size[0]])
    points = np.array([[0.5 * size[1], 0.5 * size[0]], [0.3 * size[1], 0.6 * size[0]]])
    for image_format in ("RGB", "BGR"):
        ours.set_image(image, image_format)
        reference.set_image(image, image_format)
        assert gap(ours.get_image_embedding(), reference.get_image_embedding()) < 1e-5
        assert ours.input_size == reference.input_size
        for given in ({"box": box}, {"point_coords": points, "point_labels": np.array([1, 0])}):
            found, expected = (p.predict(**given, return_logits=True) for p in (ours, reference))
            for a, b in zip(found, expected, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, atol=TOLERANCE)
        found, expected = (p.predict(box=box, multimask_output=False) for p in (ours, reference))
        assert found[0].dtype == bool
        assert (found[0] != expected[0]).sum() <= 1


def test_a_prediction_can_be_fed_back(nano, theirs):
    ours, reference = SamHQPredictor(nano), authors_package().SamPredictor(theirs)
    box = np.array([20, 20, 150, 100])
    for predictor in (ours, reference):
        predictor.set_image(picture(120, 200))
    low = ours.predict(box=box, multimask_output=False)[2]
    found, expected = (
        p.predict(box=box, mask_input=low, multimask_output=False)[2] for p in (ours, reference)
    )
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_vanilla_sam_equals_segment_anything(model):
    """The baseline is SAM's own decoder: equal to it, and not what the HQ decoder's first tokens give."""
    encoded = model.encode(
        model.preprocess(torch.from_numpy(picture(128, 128)).permute(2, 0, 1)[None])
    )
    boxes = torch.tensor([[10.0, 20, 100, 90], [50, 60, 90, 125]])
    prompts = model.embed_prompts(boxes_P4=boxes)
    for multimask in (False, True):
        found = model.decode_sam(encoded, prompts, multimask=multimask)
        sparse, dense = model.sam.prompt_encoder(points=None, boxes=boxes, masks=None)
        logits, iou = model.sam.mask_decoder(
            image_embeddings=encoded.final_BCHW,
            image_pe=model.dense_pe_1CHW,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        assert (found.logits_PKhw - logits).abs().max() < 1e-5
        assert (found.iou_PK - iou).abs().max() < 1e-5
        through_hq = model.decode_hq(encoded, prompts, multimask=multimask).sam.logits_PKhw
        assert (through_hq - logits).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_batched_decoding_equals_the_loop(nano, kind):
    """Prompts of one image together, and prompts of different images together, against one at a time."""
    images = torch.stack(
        [torch.from_numpy(picture(128, 128, seed=n)).permute(2, 0, 1) for n in range(3)]
    )
    encoded = nano.encode(nano.preprocess(images))
    given = prompt_tensors(kind, 7, nano.backbone, (128, 128))
    owner = torch.tensor([0, 2, 1, 0, 0, 2, 1])

    def embed(rows):
        return nano.embed_prompts(
            points_PN2=_rows(given["point_coords"], rows),
            labels_PN=_rows(given["point_labels"], rows),
            boxes_P4=_rows(given["boxes"], rows),
            masks_P1hw=_rows(given["mask_input"], rows),
        )

    everything = list(range(7))
    mixed = nano.decode_hq(encoded[owner], embed(everything), multimask=True)
    mixed_sam = nano.decode_sam(encoded[owner], embed(everything))
    together = nano.decode_hq(encoded[1:2], embed(everything), multimask=True)
    for n in everything:
        image = encoded[int(owner[n]) : int(owner[n]) + 1]
        alone = nano.decode_hq(image, embed([n]), multimask=True)
        assert gap(mixed.sum_P1hw[n : n + 1], alone.sum_P1hw) < 1e-5
        assert gap(mixed.hq_P1hw[n : n + 1], alone.hq_P1hw) < 1e-5
        assert (
            gap(mixed_sam.logits_PKhw[n : n + 1], nano.decode_sam(image, embed([n])).logits_PKhw)
            < 1e-5
        )
        other = nano.decode_hq(encoded[1:2], embed([n]), multimask=True)
        assert gap(together.sum_P1hw[n : n + 1], other.sum_P1hw) < 1e-5


def _rows(tensor, rows):
    return None if tensor is None else tensor[rows]


@pytest.mark.parametrize("side", [(5, 5), (8, 8), (6, 9)])
@pytest.mark.parametrize("heads", [1, 3])
@torch.no_grad()
def test_fused_attention_is_exact(side, heads):
    """Both forms, on square and oblong windows, against segment_anything's attention in double precision."""
    from hqsam.model import attention
    from hqsam.model.sam_api import Attention

    plain = Attention(12 * heads, heads, qkv_bias=True, use_rel_pos=True, input_size=side).double()
    randomise(plain, 0)
    x = torch.randn(
        4, *side, 12 * heads, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    expected = plain(x)
    assert attention.fuse_attention(plain) == 1
    assert (plain(x) - expected).abs().max() < 1e-12
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_BIAS_VALUES", 1)  # one row at a time
        assert (plain(x) - expected).abs().max() < 1e-12
        patch.setattr(attention, "_attend_by_rows", attention._attend_folded)  # the form for GPUs
        assert (plain(x) - expected).abs().max() < 1e-12
    assert attention.fuse_attention(plain) == 0


@pytest.mark.parametrize("window", [0, 4, 5])
@torch.no_grad()
def test_the_form_for_cpus_is_exact(window, monkeypatch):
    """Blocks with whole and cut windows, of two images, against segment_anything's in double precision."""
    from hqsam.model import attention, cpu_attention
    from hqsam.model.sam_api import Block

    size = (window, window) if window else (8, 12)
    block = Block(24, 3, use_rel_pos=True, qkv_bias=True, window_size=window, input_size=size)
    randomise(block.double(), 0)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 8, 12, 24, generator=generator, dtype=torch.float64)
    given, expected = x.clone(), block(x)
    # A variant's layers hang on these modules (hqsam/model/variants/_encoder.py).
    seen = []
    for module in (block.attn, block.attn.qkv):
        module.register_forward_hook(lambda module, _, output: seen.append(type(module)))
    attention.fuse_attention(block)
    monkeypatch.setattr(cpu_attention, "TOKENS", 96)
    monkeypatch.setattr(cpu_attention, "_QUERIES", 40)
    monkeypatch.setattr(attention, "_MLP_TOKENS", 50)
    assert (block(x) - expected).abs().max() < 1e-12
    assert torch.equal(x, given), "the early feature may be kept by somebody"
    assert attention.FusedAttention in seen and torch.nn.Linear in seen
    monkeypatch.setattr(cpu_attention, "TOKENS", 97)
    monkeypatch.delattr(cpu_attention, "attend")
    assert (block(x) - expected).abs().max() < 1e-12, "few tokens: the plain form"


@pytest.mark.parametrize(
    ("width", "count"), [(768, 1_071_104), (1024, 1_333_248), (1280, 1_595_392), (160, 448_512)]
)
def test_published_parameter_counts(width, count):
    assert sum(p.numel() for p in HQHead(decoder_dim=256, vit_dim=width).parameters()) == count


def test_only_the_head_trains():
    model = small_model(seed=3)
    model.train()
    assert not model.sam.training
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        f"head.{n}" for n in model.head.state_dict()
    }
    encoded = model.encode(
        model.preprocess(torch.from_numpy(picture(128, 128)).permute(2, 0, 1)[None])
    )
    prompts = model.embed_prompts(boxes_P4=torch.tensor([[10.0, 20, 100, 90]]))
    model.decode_hq(encoded, prompts).hq_P1hw.square().mean().backward()
    # The token's gradient comes through the frozen transformer.
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.head.parameters())
    assert all(p.grad is None for p in model.sam.parameters())


def test_merged_keys_are_the_published_ones(model):
    head = {
        k.removeprefix("mask_decoder.")
        for k in merged_state(model)
        if k.startswith("mask_decoder.")
    }
    stems = {k.split(".")[0] for k in head}
    assert {
        "hf_token",
        "hf_mlp",
        "compress_vit_feat",
        "embedding_encoder",
        "embedding_maskfeature",
    } <= stems
    assert len(merged_state(model)) == len(model.sam.state_dict()) + 25
