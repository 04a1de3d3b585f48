"""Build a model from options or, for people who come from ``segment_anything``, from a name and a file."""

from __future__ import annotations

from pathlib import Path

import torch
from hqsam_datasets.errors import UserError

from hqsam.model import backbones, checkpoint
from hqsam.model.checkpoint import Checkpoint
from hqsam.model.hq_decoder import HQHead
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import ModelOptions


def build_sam_hq(name: str = "vit_h", checkpoint: str | Path | None = None, *, head: str | Path | None = None) -> HQSam:
    """HQ-SAM in eval mode, on the CPU; move it with ``.to(device)``.

    Args:
        name: Backbone.
        checkpoint: A whole model: plain SAM (the HQ head is then fresh, unless ``head`` is given), merged
            HQ-SAM, Light HQ-SAM, Hugging Face ``SamHQModel``. None: random weights.
        head: HQ parameters alone (``hq_head.safetensors``) or the training code's decoder file.

    Raises:
        UserError: Unknown backbone, missing or unfitting file.
    """
    options = ModelOptions.model_construct(backbone=name, checkpoint=None if checkpoint is None else Path(checkpoint))
    return build_model(options, head=None if head is None else Path(head)).eval()


def build_model(options: ModelOptions, *, head: Path | None = None, seed: int = 0) -> HQSam:
    """The model that ``params.yaml`` describes.

    Args:
        options: An entry of ``models``.
        head: Trained HQ parameters; without them (and without any in the checkpoint) the head is fresh.
        seed: Initialises what is not loaded. The global random state is left as it was.

    Raises:
        UserError: Unknown backbone, missing or unfitting file.
    """
    backbone = options.load_backbone()
    base = None if options.checkpoint is None else _read_base(options.checkpoint, options.backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new_head = HQHead(decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim)
        model = HQSam(backbone=backbone, sam=backbone.build(), head=new_head)
    if base is not None:
        _load_base(model, base)
    if head is not None:
        load_head(model, head)
    return model


def _read_base(path: Path, backbone: str) -> Checkpoint:
    """Read SAM's weights and refuse what cannot fit before a model of perhaps 600 M parameters is built."""
    found = checkpoint.read(path)
    if not found.has_encoder:
        raise UserError(
            f"this is a {found.format} file: it has no image encoder", file=path, cure="give a whole SAM or HQ-SAM"
        )
    actual = checkpoint.backbone_of(found)
    if actual not in (backbone, None):
        raise UserError(f"the file is a {actual}, it does not fit {backbone}", file=path, key="backbone")
    return found


def _load_base(model: HQSam, found: Checkpoint) -> None:
    path, name = found.path, model.backbone.name
    checkpoint.load_strict(model.sam, found.sam, path=path, what=f"SAM {name}")
    if found.head:
        checkpoint.load_strict(model.head, found.head, path=path, what=f"the HQ head of {name}")


def load_head(model: HQSam, path: Path) -> None:
    """Load HQ parameters into a model; the SAM decoder in a training file must equal the model's own.

    Args:
        model: Filled in place.
        path: ``hq_head``, ``hq_decoder``, ``hq_sam`` or ``hf_sam_hq`` file.

    Raises:
        UserError: No HQ parameters in it, another backbone's, or trained on another SAM.
    """
    found = checkpoint.read(path)
    if not found.head:
        raise UserError(
            f"this is a {found.format} file: it has no HQ parameters", file=path, cure="give a trained head"
        )
    trained_on = found.metadata.get("backbone", model.backbone.name)
    if trained_on != model.backbone.name:
        raise UserError(
            f"the head was trained on {trained_on}, the model is {model.backbone.name}",
            file=path,
            key="backbone",
        )
    checkpoint.load_strict(model.head, found.head, path=path, what=f"the HQ head of {model.backbone.name}")
    _check_same_decoder(model, found)


def _check_same_decoder(model: HQSam, found: Checkpoint) -> None:
    own = model.sam.state_dict()
    differing = [
        key
        for key, value in found.sam.items()
        if key.startswith("mask_decoder.") and not torch.equal(value, own[key].to(value))
    ]
    if differing:
        raise UserError(
            f"the file's SAM decoder is not the model's ({len(differing)} tensors differ, e.g. {differing[0]}):"
            " the HQ parameters were trained on another SAM",
            file=found.path,
            cure="load the SAM checkpoint that the training started from",
        )


__all__ = ["backbones", "build_model", "build_sam_hq", "load_head"]
