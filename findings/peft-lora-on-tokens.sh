#!/usr/bin/env bash
# peft 0.21.2 on transformers 5.23.0: LoRA on SAM's tokens (mask_tokens, no_mask_embed) does nothing until it is merged.
# Guess: PEFT knows embeddings, so the adapter acts in the forward pass as it does once merged.
# What happens: PEFT wraps the embedding's forward. SAM never calls it, it reads `.weight`: the adapter gets no gradient and
#   changes no mask, and merge_and_unload then changes the masks.
# Seen: masks move by 0 (rounding) with the adapter, by 4e-3 after merge_and_unload; patch embedding: the same before and after
# Hurts: who tunes the mask or HQ token with LoRA beside other layers: the token silently stays, and merging adds untrained noise.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 torch==2.13.0 transformers==5.23.0 peft==0.21.2
python - <<'PY'
import os

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, get_peft_model
from transformers import SamConfig, SamModel

vision = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32}
vision |= {"image_size": 64, "patch_size": 16, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 16}
prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 16}
decoder = {"hidden_size": 32, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)


@torch.no_grad()
def moved_by(target: str) -> list[float]:
    """How far masks move with the adapter on `target`, and after merging it."""
    torch.manual_seed(0)
    model = SamModel(config).eval()
    for parameter in model.parameters():
        parameter.normal_(0, 0.1)
    inputs = {"pixel_values": torch.randn(1, 3, 64, 64), "input_boxes": torch.tensor([[[4.0, 4.0, 40.0, 50.0]]])}
    plain = model(**inputs).pred_masks
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=[target])).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.normal_(0, 0.5)
    masks = adapted(**inputs).pred_masks, adapted.merge_and_unload()(**inputs).pred_masks
    return [float((each - plain).abs().max()) for each in masks]


token, patches = moved_by("no_mask_embed"), moved_by("patch_embed.projection")
print(f"seen now: masks move (adapter, merged): no_mask_embed {token}, patch_embed {patches}")
assert token[0] < 1e-6 < 1e-4 < token[1], "the behaviour changed"
assert abs(patches[0] - patches[1]) < 1e-6 < patches[0], "the control changed"
PY
