"""Names of Hugging Face ``SamHQModel`` (and plain ``SamModel``) weights against the published ones.

Only names differ: every tensor has the same shape and meaning in both. One table serves both
directions;
``#`` stands for a number, ``*`` for the rest of the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_RULES: tuple[tuple[str, str], ...] = (
    ("vision_encoder.pos_embed", "image_encoder.pos_embed"),
    ("vision_encoder.patch_embed.projection.*", "image_encoder.patch_embed.proj.*"),
    ("vision_encoder.layers.#.layer_norm1.*", "image_encoder.blocks.#.norm1.*"),
    ("vision_encoder.layers.#.layer_norm2.*", "image_encoder.blocks.#.norm2.*"),
    ("vision_encoder.layers.#.attn.*", "image_encoder.blocks.#.attn.*"),
    ("vision_encoder.layers.#.mlp.*", "image_encoder.blocks.#.mlp.*"),
    ("vision_encoder.neck.conv1.*", "image_encoder.neck.0.*"),
    ("vision_encoder.neck.layer_norm1.*", "image_encoder.neck.1.*"),
    ("vision_encoder.neck.conv2.*", "image_encoder.neck.2.*"),
    ("vision_encoder.neck.layer_norm2.*", "image_encoder.neck.3.*"),
    (
        "shared_image_embedding.positional_embedding",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    ("prompt_encoder.point_embed.#.*", "prompt_encoder.point_embeddings.#.*"),
    ("prompt_encoder.not_a_point_embed.*", "prompt_encoder.not_a_point_embed.*"),
    ("prompt_encoder.no_mask_embed.*", "prompt_encoder.no_mask_embed.*"),
    ("prompt_encoder.mask_embed.conv1.*", "prompt_encoder.mask_downscaling.0.*"),
    ("prompt_encoder.mask_embed.layer_norm1.*", "prompt_encoder.mask_downscaling.1.*"),
    ("prompt_encoder.mask_embed.conv2.*", "prompt_encoder.mask_downscaling.3.*"),
    ("prompt_encoder.mask_embed.layer_norm2.*", "prompt_encoder.mask_downscaling.4.*"),
    ("prompt_encoder.mask_embed.conv3.*", "prompt_encoder.mask_downscaling.6.*"),
    (
        "mask_decoder.transformer.layers.#.layer_norm#.*",
        "mask_decoder.transformer.layers.#.norm#.*",
    ),
    (
        "mask_decoder.transformer.layer_norm_final_attn.*",
        "mask_decoder.transformer.norm_final_attn.*",
    ),
    ("mask_decoder.transformer.*", "mask_decoder.transformer.*"),
    ("mask_decoder.iou_token.*", "mask_decoder.iou_token.*"),
    ("mask_decoder.mask_tokens.*", "mask_decoder.mask_tokens.*"),
    ("mask_decoder.upscale_conv1.*", "mask_decoder.output_upscaling.0.*"),
    ("mask_decoder.upscale_layer_norm.*", "mask_decoder.output_upscaling.1.*"),
    ("mask_decoder.upscale_conv2.*", "mask_decoder.output_upscaling.3.*"),
    (
        "mask_decoder.output_hypernetworks_mlps.#.proj_in.*",
        "mask_decoder.output_hypernetworks_mlps.#.layers.0.*",
    ),
    (
        "mask_decoder.output_hypernetworks_mlps.#.layers.0.*",
        "mask_decoder.output_hypernetworks_mlps.#.layers.1.*",
    ),
    (
        "mask_decoder.output_hypernetworks_mlps.#.proj_out.*",
        "mask_decoder.output_hypernetworks_mlps.#.layers.2.*",
    ),
    ("mask_decoder.iou_prediction_head.proj_in.*", "mask_decoder.iou_prediction_head.layers.0.*"),
    ("mask_decoder.iou_prediction_head.layers.0.*", "mask_decoder.iou_prediction_head.layers.1.*"),
    ("mask_decoder.iou_prediction_head.proj_out.*", "mask_decoder.iou_prediction_head.layers.2.*"),
    ("mask_decoder.hq_token.*", "mask_decoder.hf_token.*"),
    ("mask_decoder.hq_mask_mlp.proj_in.*", "mask_decoder.hf_mlp.layers.0.*"),
    ("mask_decoder.hq_mask_mlp.layers.0.*", "mask_decoder.hf_mlp.layers.1.*"),
    ("mask_decoder.hq_mask_mlp.proj_out.*", "mask_decoder.hf_mlp.layers.2.*"),
    ("mask_decoder.compress_vit_conv1.*", "mask_decoder.compress_vit_feat.0.*"),
    ("mask_decoder.compress_vit_norm.*", "mask_decoder.compress_vit_feat.1.*"),
    ("mask_decoder.compress_vit_conv2.*", "mask_decoder.compress_vit_feat.3.*"),
    ("mask_decoder.encoder_conv1.*", "mask_decoder.embedding_encoder.0.*"),
    ("mask_decoder.encoder_norm.*", "mask_decoder.embedding_encoder.1.*"),
    ("mask_decoder.encoder_conv2.*", "mask_decoder.embedding_encoder.3.*"),
    ("mask_decoder.mask_conv1.*", "mask_decoder.embedding_maskfeature.0.*"),
    ("mask_decoder.mask_norm.*", "mask_decoder.embedding_maskfeature.1.*"),
    ("mask_decoder.mask_conv2.*", "mask_decoder.embedding_maskfeature.3.*"),
)

# The same matrix a second time in the Hugging Face model (tied weights; a file may hold either or
# both).
_SHARED = "shared_image_embedding.positional_embedding"
_SHARED_TWIN = "prompt_encoder.shared_embedding.positional_embedding"

_Rule = tuple[re.Pattern[str], str]


def matches(keys: Mapping[str, object]) -> bool:
    """Whether these are the keys of a Hugging Face SAM."""
    return any(key.startswith("vision_encoder.") for key in keys)


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename Hugging Face keys to the published ones; strict loading reports unknown keys later."""
    state = dict(state)
    twin = state.pop(_SHARED_TWIN, None)
    if twin is not None:
        state.setdefault(_SHARED, twin)
    return _renamed(state, _compiled(_RULES))


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a merged checkpoint (``mask_decoder.hf_token.weight``, ...) to Hugging Face's.

    Raises:
        KeyError: A key has no counterpart there, e.g. TinyViT's.
    """
    rules = _compiled([(published, hugging_face) for hugging_face, published in _RULES])
    unknown = [key for key in state if not any(pattern.fullmatch(key) for pattern, _ in rules)]
    if unknown:
        raise KeyError(
            f"Hugging Face's SamHQModel has no place for {unknown[0]} ({len(unknown)} keys)"
        )
    renamed = _renamed(state, rules)
    renamed[_SHARED_TWIN] = renamed[_SHARED].clone()
    return renamed


def _compiled(rules: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> list[_Rule]:
    return [(_pattern(source), _replacement(target)) for source, target in rules]


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(
        re.escape(template).replace(r"\#", r"(\d+)").replace("#", r"(\d+)").replace(r"\*", "(.+)")
    )


def _replacement(template: str) -> str:
    groups = iter(range(1, 10))
    return re.sub(r"[#*]", lambda _: rf"\g<{next(groups)}>", template)


def _renamed(state: Mapping[str, Tensor], rules: list[_Rule]) -> dict[str, Tensor]:
    return {_rename(key, rules): value for key, value in state.items()}


def _rename(key: str, rules: list[_Rule]) -> str:
    for pattern, replacement in rules:
        found = pattern.fullmatch(key)
        if found:
            return found.expand(replacement)
    return key
