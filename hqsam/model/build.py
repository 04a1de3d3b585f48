"""Build a model from options or, for people who come from ``segment_anything``, from a name and a file."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from hqsam.model import backbones, checkpoint, variants
from hqsam.model.checkpoint import Checkpoint
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import ModelOptions
from hqsam_base.errors import UserError


def build_sam_hq(
    name: str = "vit_h",
    checkpoint: str | Path | None = None,
    *,
    head: str | Path | None = None,
    variant: str = variants.DEFAULT,
) -> HQSam:
    """HQ-SAM in eval mode, on the CPU; move it with ``.to(device)``.

    Args:
        name: Backbone.
        checkpoint: A whole model: plain SAM (the HQ head is then fresh, with a warning, unless
            ``head`` is given), merged HQ-SAM, Light HQ-SAM, Hugging Face ``SamHQModel``. None:
            random weights.
        head: HQ parameters alone (``hq_head.safetensors``) or the training code's decoder file.
        variant: Which of the paper's systems, a file of ``hqsam/model/variants``.

    Raises:
        UserError: Unknown backbone or variant, missing or unfitting file.
    """
    path = None if checkpoint is None else Path(checkpoint)
    options = ModelOptions.model_construct(backbone=name, checkpoint=path, variant=variant)
    model = build_model(options, head=None if head is None else Path(head)).eval()
    if path is not None and not model.head_loaded and variant == variants.DEFAULT:
        warnings.warn(
            f"{path} holds no HQ parameters: the HQ head is fresh, its masks mean nothing before "
            f"it is trained"
            " (vanilla SAM's are those of decode_sam, or output='sam' of predict_batch)",
            stacklevel=2,
        )
    return model


def build_model(options: ModelOptions, *, head: Path | None = None, seed: int = 0) -> HQSam:
    """The model that ``params.yaml`` describes.

    Args:
        options: An entry of ``models``.
        head: What was trained; without it (and without HQ parameters in the checkpoint) the head is
            fresh.
        seed: Initialises what is not loaded. The global random state is left as it was.

    Raises:
        UserError: Unknown backbone or variant, missing or unfitting file.
    """
    backbone = options.load_backbone()
    base = None if options.checkpoint is None else _read_base(options.checkpoint, options.backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new_head = variants.build(options.variant, backbone)
        sam = backbone.build()
        if base is not None:
            checkpoint.load_strict(sam, base.sam, path=base.path, what=f"SAM {backbone.name}")
        # After SAM's weights: a head may copy them. Seeded again: its numbers do not depend on how
        # SAM was initialised.
        torch.manual_seed(seed)
        model = HQSam(backbone=backbone, sam=sam, head=new_head)
    # The HQ parameters of a merged file; another variant takes SAM's weights from it and starts
    # afresh.
    if base is not None and base.head and model.variant == variants.DEFAULT:
        what = f"the HQ head of {model.backbone.name}"
        checkpoint.load_strict(model.head, base.head, path=base.path, what=what)
        model.head_loaded = True
    if head is not None:
        load_head(model, head)
        _compare_base(head, options.checkpoint)
    return model


def _compare_base(head: Path, base: Path | None) -> None:
    """Say so if a head was trained on another file; the same SAM in another format is no error."""
    noted = checkpoint.read(head).metadata.get("base_sha256")
    if base is None or noted is None or noted == checkpoint.sha256(base):
        return
    warnings.warn(
        f"{head} was trained on the SAM file with SHA-256 {str(noted)[:12]}..., {base} is another "
        f"file: its masks are only"
        " right if that holds the same weights",
        stacklevel=4,
    )


def _read_base(path: Path, backbone: str) -> Checkpoint:
    """Read SAM's weights and refuse what cannot fit before a model of perhaps 600 M parameters is built."""
    found = checkpoint.read(path)
    if not found.has_encoder:
        raise UserError(
            f"this is a {found.format} file: it has no image encoder",
            file=path,
            cure="give a whole SAM or HQ-SAM",
        )
    actual = checkpoint.backbone_of(found)
    if actual not in (backbone, None):
        raise UserError(
            f"the file is a {actual}, it does not fit {backbone}", file=path, key="backbone"
        )
    return found


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
            f"this is a {found.format} file: it has no HQ parameters",
            file=path,
            cure="give a trained head",
        )
    for key, own in (("backbone", model.backbone.name), ("variant", model.variant)):
        noted = str(found.metadata.get(key, variants.DEFAULT if key == "variant" else own))
        if noted != own:
            raise UserError(
                f"the head was trained on {noted}, the model is {own}", file=path, key=key
            )
    checkpoint.load_strict(
        model.head, found.head, path=path, what=f"the {model.variant} head of {model.backbone.name}"
    )
    own_sam = model.sam.state_dict()
    differing = [
        key
        for key, value in found.sam.items()
        if key.startswith("mask_decoder.") and not torch.equal(value, own_sam[key].to(value))
    ]
    if differing:
        raise UserError(
            f"the file's SAM decoder is not the model's ({len(differing)} tensors differ, e.g. "
            f"{differing[0]}):"
            " the HQ parameters were trained on another SAM",
            file=found.path,
            cure="load the SAM checkpoint that the training started from",
        )
    model.head_loaded = True


__all__ = ["backbones", "build_model", "build_sam_hq", "load_head"]
