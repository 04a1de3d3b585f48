"""Identifies checkpoints, and writes a model in another published format."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from hqsam.model import checkpoint, hf_format, variants
from hqsam.model.hq_sam import HQSam
from hqsam_base import atomic
from hqsam_base.errors import UserError

Target = Literal["hq_sam", "sam", "hq_decoder", "sam_decoder", "hq_head", "hf_sam_hq"]
TARGETS: tuple[Target, ...] = get_args(Target)

_DECODER = "mask_decoder."
_HUGGING_FACE = {"model.safetensors", "config.json"}


@dataclass(frozen=True)
class Summary:
    """What ``hqsam checkpoint inspect`` tells.

    Attributes:
        path: The file.
        format: See ``checkpoint.FORMATS``.
        backbone: Its name, or None if it fits none of this installation's.
        variant: Which of the paper's systems the file holds, or None if it is SAM's weights only.
        sha256: Of the file.
        published_as: The published file with exactly this content, if it is one.
        parameters: Number of parameters of each part that the file holds.
        dtypes: Number of tensors per data type.
        metadata: What this project's own files note.
    """

    path: Path
    format: checkpoint.Format
    backbone: str | None
    variant: str | None
    sha256: str
    published_as: str | None
    parameters: dict[str, int]
    dtypes: dict[str, int]
    metadata: dict[str, Any]


def inspect(path: Path) -> Summary:
    """Read a checkpoint and describe it.

    Raises:
        UserError: Missing, unreadable, of no known format, or not what its published name says.
    """
    found = checkpoint.read(path)
    path, digest = found.path, checkpoint.sha256(found.path)
    parts: dict[str, int] = {}
    for key, tensor in found.sam.items():
        part = key.partition(".")[0]
        parts[part] = parts.get(part, 0) + tensor.numel()
    if found.head:
        parts["hq_head"] = sum(tensor.numel() for tensor in found.head.values())
    dtypes = Counter(
        str(t.dtype).removeprefix("torch.") for t in (*found.sam.values(), *found.head.values())
    )
    return Summary(
        path=path,
        format=found.format,
        backbone=checkpoint.backbone_of(found),
        variant=str(found.metadata.get("variant", variants.DEFAULT)) if found.head else None,
        sha256=digest,
        published_as=checkpoint.check_published(path, digest),
        parameters=parts,
        dtypes=dict(sorted(dtypes.items())),
        metadata=found.metadata,
    )


def merged_state(model: HQSam) -> dict[str, Tensor]:
    """A model's weights in the layout of the published ``sam_hq_*.pth``."""
    return {
        checkpoint.published_name(k): v.detach().cpu().contiguous()
        for k, v in model.state_dict().items()
    }


def write(model: HQSam, path: Path, target: Target) -> None:
    """Write a model's weights.

    Args:
        model: What to write.
        path: A ``.pth`` file (``torch.save`` of a state dict, for the official code) or a
            ``.safetensors`` file; for
            ``hf_sam_hq`` a folder, for ``SamHQModel.from_pretrained``.
        target: The format.

    Raises:
        UserError: The suffix does not fit the format, the folder holds other files (it is replaced
            as a whole), or the format has no place for this backbone.
    """
    if model.variant != variants.DEFAULT and target != "hq_head":
        raise UserError(
            f"the published formats have no place for the variant {model.variant}",
            key="variant",
            cure="write an hq_head file; SAM's own weights are in the file that the training "
            "started from",
        )
    if target == "hf_sam_hq":
        _write_hugging_face(model, path)
    elif target == "hq_head":
        if path.suffix != ".safetensors":
            raise UserError(
                "an hq_head file is a .safetensors file", file=path, cure="change the suffix"
            )
        metadata = {"backbone": model.backbone.name, "variant": model.variant}
        checkpoint.save_head(path, model.head, metadata=metadata)
    else:
        atomic.write_bytes(path, _bytes(_part(merged_state(model), target), path))


def _part(state: Mapping[str, Tensor], target: Target) -> dict[str, Tensor]:
    own = [key for key in state if not checkpoint.is_hq(key, _DECODER)]
    wanted = list(state) if target in ("hq_sam", "hq_decoder") else own
    if target in ("hq_decoder", "sam_decoder"):
        return {
            key.removeprefix(_DECODER): state[key] for key in wanted if key.startswith(_DECODER)
        }
    return {key: state[key] for key in wanted}


def _bytes(state: dict[str, Tensor], path: Path) -> bytes:
    if path.suffix == ".safetensors":
        return save(dict(sorted(state.items())))
    if path.suffix not in (".pth", ".pt"):
        raise UserError(
            f"unknown suffix {path.suffix!r}", file=path, cure="use .pth or .safetensors"
        )
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _write_hugging_face(model: HQSam, folder: Path) -> None:
    if folder.suffix in (".pth", ".pt", ".safetensors") or folder.is_file():
        raise UserError(
            "hf_sam_hq is written as a folder", file=folder, cure="give the path of a folder"
        )
    if folder.is_dir() and {path.name for path in folder.iterdir()} - _HUGGING_FACE:
        raise UserError(
            "the folder holds other files", file=folder, cure="give an empty folder, or a new one"
        )
    try:
        state = hf_format.to_hugging_face(merged_state(model))
    except KeyError as error:
        raise UserError(
            str(error.args[0]), key=model.backbone.name, cure="choose another format"
        ) from error
    with atomic.atomic_folder(folder) as work:
        (work / "model.safetensors").write_bytes(
            save(dict(sorted(state.items())), metadata={"format": "pt"})
        )
        (work / "config.json").write_bytes(atomic.json_bytes(hugging_face_config(model)))


def hugging_face_config(model: HQSam) -> dict[str, Any]:
    """``config.json`` of the model's Hugging Face form, read off the modules themselves.

    Raises:
        UserError: The encoder is not SAM's plain ViT.
    """
    backbone, encoder, decoder = model.backbone, model.sam.image_encoder, model.sam.mask_decoder
    blocks = getattr(encoder, "blocks", None)
    if blocks is None:
        raise UserError(
            "Hugging Face's SamHQModel has only SAM's plain ViT",
            key=backbone.name,
            cure="choose another format",
        )
    windows = [int(block.window_size) for block in blocks]
    width = int(encoder.patch_embed.proj.out_channels)
    return {
        "architectures": ["SamHQModel"],
        "model_type": "sam_hq",
        "vision_config": {
            "hidden_size": width,
            "output_channels": backbone.decoder_dim,
            "num_hidden_layers": len(blocks),
            "num_attention_heads": int(blocks[0].attn.num_heads),
            "image_size": backbone.image_size,
            "patch_size": backbone.image_size // backbone.embedding_size,
            "window_size": max(windows),
            "global_attn_indexes": [n for n, window in enumerate(windows) if window == 0],
            "mlp_dim": int(blocks[0].mlp.lin1.out_features),
            "num_pos_feats": backbone.decoder_dim // 2,
        },
        "prompt_encoder_config": {
            "hidden_size": backbone.decoder_dim,
            "image_size": backbone.image_size,
            "patch_size": backbone.image_size // backbone.embedding_size,
        },
        "mask_decoder_config": {
            "hidden_size": backbone.decoder_dim,
            "mlp_dim": int(decoder.transformer.layers[0].mlp.lin1.out_features),
            "iou_head_hidden_dim": int(decoder.iou_prediction_head.layers[0].out_features),
            "vit_dim": backbone.vit_dim,
        },
    }
