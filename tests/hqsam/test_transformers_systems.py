"""Systems of the ``transformers`` library against its own processor, model and post-processing; all tiny and random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hqsam import systems
from hqsam.model._torchvision import ensure_torchvision
from hqsam.model.options import ModelOptions
from hqsam.prediction.options import PredictOptions
from hqsam.prediction.prompt import Prompt
from hqsam.systems import Context, Entry
from hqsam_base.errors import UserError

ensure_torchvision()
transformers = pytest.importorskip("transformers")

DECODER = {
    "hidden_size": 32,
    "mlp_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}
LEVELS = [[16, 16], [8, 8], [4, 4]]
BOXES = [[5.0, 4.0, 60.0, 40.0], [30.5, 10.25, 90.0, 45.0], [0.0, 0.0, 20.0, 47.0]]


def prompt_encoder(side: int, patch: int) -> dict[str, int]:
    # 16 channels: with four, a norm over one channel makes all mask prompts the same
    sizes = {"image_size": side, "patch_size": patch}
    return {"hidden_size": 32, "mask_input_channels": 16, **sizes}


def tiny(family: str) -> tuple[Any, Any]:
    """A random model and its processor; weights drawn anew, because SAM's own start is blind to the image."""
    t = transformers
    torch.manual_seed(0)
    if family == "sam":
        vision = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2}
        vision |= {"num_attention_heads": 2, "image_size": 64, "patch_size": 16, "window_size": 2}
        vision |= {"global_attn_indexes": [1], "num_pos_feats": 16, "mlp_dim": 32}
        config = t.SamConfig(
            vision_config=vision,
            prompt_encoder_config=prompt_encoder(64, 16),
            mask_decoder_config=DECODER,
        )
        model = t.SamModel(config)
        images = t.SamImageProcessor(
            size={"longest_edge": 64},
            pad_size={"height": 64, "width": 64},
            mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        )
        processor = t.SamProcessor(images)
    elif family == "sam2":
        backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": 8}
        backbone |= {"num_attention_heads": 1, "image_size": [64, 64]}
        backbone |= {"window_positional_embedding_background_size": [2, 2]}
        backbone |= {"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64]}
        backbone |= {"num_attention_heads_per_stage": [1, 2, 4, 8]}
        backbone |= {"window_size_per_stage": [4, 2, 2, 2], "global_attention_blocks": [3]}
        vision = {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8]}
        vision |= {"backbone_feature_sizes": LEVELS, "fpn_hidden_size": 32}
        config = t.Sam2Config(
            vision_config=vision,
            prompt_encoder_config=prompt_encoder(64, 16),
            mask_decoder_config=DECODER,
        )
        model = t.Sam2Model(config)
        images = t.Sam2ImageProcessor(size={"height": 64, "width": 64})
        processor = t.Sam2Processor(images, target_size=64)
    elif family == "edgetam":
        pytest.importorskip("timm")
        args = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
        vision = t.EdgeTamVisionConfig(
            backbone_config=t.TimmWrapperConfig(architecture="repvit_m1", model_args=args),
            backbone_channel_list=[384, 192, 96, 48],
            backbone_feature_sizes=LEVELS,
            fpn_hidden_size=32,
        )
        config = t.EdgeTamConfig(
            vision_config=vision,
            prompt_encoder_config=prompt_encoder(64, 16),
            mask_decoder_config=DECODER,
        )
        model = t.EdgeTamModel(config)
        images = t.Sam2ImageProcessor(size={"height": 64, "width": 64})
        processor = t.Sam2Processor(images, target_size=64)
    else:
        backbone = {"model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64}
        backbone |= {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56}
        backbone |= {"patch_size": 14, "window_size": 2, "global_attn_indexes": [1]}
        backbone |= {"pretrain_image_size": 56}
        vision = {"model_type": "sam3_vision_model", "backbone_config": backbone}
        vision |= {"fpn_hidden_size": 32, "backbone_feature_sizes": LEVELS}
        config = t.Sam3TrackerConfig(
            vision_config=vision,
            prompt_encoder_config=prompt_encoder(56, 14),
            mask_decoder_config=DECODER,
        )
        model = t.Sam3TrackerModel(config)
        images = t.Sam3ImageProcessor(size={"height": 56, "width": 56})
        processor = t.Sam3TrackerProcessor(images, target_size=56)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # timm draws its own encoder; drawn anew, its features drown those of a mask prompt.
            if family == "edgetam" and name.startswith("vision_encoder.backbone"):
                continue
            if weight.dim() > 1:
                weight.normal_(0, 1.5 * weight[0].numel() ** -0.5)
            else:
                weight.add_(torch.randn_like(weight), alpha=0.1)
    return model.eval(), processor


def opened(folder: Path, **options: Any) -> Any:
    kind = systems.load("transformers")
    entry = Entry("x", kind.options(kind="transformers", model=str(folder), **options))
    context = Context(ModelOptions(backbone="nano"), Path("none"), PredictOptions(device="cpu"))
    return kind.open(entry, context)


def ours(system: Any, image: Any, prompts: list[Prompt]) -> tuple[list[Any], list[float]]:
    (encoded,) = system.encode([system.prepare(image)])
    (found,) = system.decode(encoded, prompts).values()
    return [system.to_image(encoded, v).full() for v in found.values], list(found.iou)


@pytest.mark.parametrize("family", ["sam", "sam2", "edgetam", "sam3_tracker"])
def test_masks_and_scores_are_the_librarys_own(family: str, tmp_path: Path) -> None:
    model, processor = tiny(family)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    system = opened(tmp_path)
    draw = np.random.default_rng(1)
    image, other = (draw.integers(0, 256, (48, 96, 3), np.uint8) for _ in range(2))
    points = [[[20.0, 10.0], [70.5, 30.0]], [[5.0, 5.0], [90.0, 40.0]]]
    cases = [
        ({"input_boxes": [BOXES]}, [Prompt(box=box) for box in BOXES]),
        (
            {"input_points": [points], "input_labels": [[[1, 0], [1, 0]]]},
            [Prompt(points=some, labels=(1, 0)) for some in points],
        ),
    ]
    for arguments, prompts in cases:
        inputs = processor(image, return_tensors="pt", **arguments)
        sizes = {"original_sizes": inputs.pop("original_sizes")}
        if "reshaped_input_sizes" in inputs:
            sizes["reshaped_input_sizes"] = inputs.pop("reshaped_input_sizes")
        with torch.no_grad():
            found = model(**inputs, multimask_output=False)
        (theirs,) = processor.post_process_masks(found.pred_masks, **sizes)
        masks, scores = ours(system, image, prompts)
        assert 0 < np.mean(masks) < 1
        np.testing.assert_array_equal(masks, theirs[:, 0].numpy())
        np.testing.assert_allclose(scores, found.iou_scores[0, :, 0], atol=1e-5)
        singles = [ours(system, image, [prompt])[0][0] for prompt in prompts]
        np.testing.assert_array_equal(masks, singles)
        assert not np.array_equal(masks, ours(system, other, prompts)[0])
    # Each prompt has a mask prompt of its own, and it matters.
    coarse = [np.zeros((48, 96), bool), np.ones((48, 96), bool)]
    both = [Prompt(box=BOXES[0], mask=mask) for mask in coarse]
    (encoded,) = system.encode([system.prepare(image)])

    def logits(prompts: list[Prompt]) -> Any:
        return np.stack(system.decode(encoded, prompts)["x"].values)

    together = logits(both)
    np.testing.assert_allclose(
        together, [logits([prompt])[0] for prompt in both], rtol=1e-4, atol=1e-4
    )
    assert np.abs(together[0] - together[1]).max() > 1e-3
    assert system.protocol["resize"] == ("longest_side" if family == "sam" else "stretch")


def test_folders_that_cannot_be_evaluated_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs its commit"):
        opened(tmp_path / "none")
    config = tmp_path / "config.json"
    for model_type, problem in (("sam_hq", "does not compute"), ("bert", "'bert'")):
        config.write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(UserError, match=problem):
            opened(tmp_path)
    model, processor = tiny("sam3_tracker")
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot be opened"):
        opened(tmp_path)
    processor.save_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in sorted(weights) if "mask_decoder." in name)
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights .* mask_decoder\."):
        opened(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be opened"):
        opened(tmp_path)  # a pickle
