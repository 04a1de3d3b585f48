"""Tiny random models of the `transformers` library, written as folders without a network.

Weights are drawn anew: as the constructors leave them some models do not see the image at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hqsam.model._torchvision import ensure_torchvision

ensure_torchvision()

import transformers  # noqa: E402  (torchvision first)

PROMPT = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 16}
DECODER = {
    "hidden_size": 32,
    "mlp_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}
LEVELS = {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 32}


def _sam() -> tuple[Any, Any]:
    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
        "mlp_dim": 32,
    }
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER
    )
    pixels = transformers.SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    return transformers.SamModel(config), transformers.SamProcessor(pixels)


def _sam2_vision() -> dict[str, Any]:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "window_positional_embedding_background_size": [2, 2],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [3],
    }
    return {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], **LEVELS}


def _sam2() -> tuple[Any, Any]:
    config = transformers.Sam2Config(
        vision_config=_sam2_vision(), prompt_encoder_config=PROMPT, mask_decoder_config=DECODER
    )
    pixels = transformers.Sam2ImageProcessor(size={"height": 64, "width": 64})
    return transformers.Sam2Model(config), transformers.Sam2Processor(pixels)


def _sam2_video() -> tuple[Any, Any]:
    config = transformers.Sam2VideoConfig(
        vision_config={"model_type": "sam2_vision_model", **_sam2_vision()},
        prompt_encoder_config=PROMPT,
        mask_decoder_config=DECODER,
        image_size=64,
        memory_attention_hidden_size=32,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
    )
    pixels = transformers.Sam2ImageProcessor(size={"height": 64, "width": 64})
    return transformers.Sam2VideoModel(config), transformers.Sam2Processor(pixels)


def _edgetam() -> tuple[Any, Any]:
    args = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    backbone = transformers.TimmWrapperConfig(architecture="repvit_m1", model_args=args)
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=backbone, backbone_channel_list=[384, 192, 96, 48], **LEVELS
    )
    config = transformers.EdgeTamConfig(
        vision_config=vision, prompt_encoder_config=PROMPT, mask_decoder_config=DECODER
    )
    pixels = transformers.Sam2ImageProcessor(size={"height": 64, "width": 64})
    return transformers.EdgeTamModel(config), transformers.Sam2Processor(pixels)


def _sam3_tracker() -> tuple[Any, Any]:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 56,
    }
    config = transformers.Sam3TrackerConfig(
        vision_config={"model_type": "sam3_vision_model", "backbone_config": backbone, **LEVELS},
        prompt_encoder_config={**PROMPT, "image_size": 56, "patch_size": 14},
        mask_decoder_config=DECODER,
    )
    pixels = transformers.Sam3ImageProcessor(size={"height": 56, "width": 56})
    return transformers.Sam3TrackerModel(config), transformers.Sam3TrackerProcessor(pixels)


MAKERS = {
    "sam": _sam,
    "sam2": _sam2,
    "edgetam": _edgetam,
    "sam3_tracker": _sam3_tracker,
}
"""By kind."""


def redrawn(model: torch.nn.Module, seed: int = 0) -> None:
    """Draw every weight so that the image, the prompt and each other's masks matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters()):
            # timm draws its own encoder; drawn anew, its features drown a mask prompt's.
            if "timm_model" in name:
                continue
            fan = tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 4.0
            tensor += torch.randn(tensor.shape, generator=generator) / fan


def build(kind: str, folder: Path, seed: int = 0) -> tuple[Any, Any]:
    """Write a tiny model with its processor; gives the library's own two."""
    # The constructors draw too: a seed for both, or one run in many has a mask that is full.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = _sam2_video() if kind == "sam2_video" else MAKERS[kind]()
    redrawn(model, seed)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor
