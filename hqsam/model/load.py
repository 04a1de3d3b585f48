"""A model from whatever file a user has."""

from __future__ import annotations

from pathlib import Path

from hqsam.model import backbones, checkpoint, variants
from hqsam.model.build import build_model
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import ModelOptions
from hqsam_base.errors import UserError


def load_any(
    path: Path,
    *,
    backbone: str | None = None,
    base: Path | None = None,
    without_hq: str | None = None,
) -> HQSam:
    """Load a checkpoint of any format, in eval mode on the CPU.

    Args:
        path: A whole SAM or HQ-SAM; a trained head or decoder; or the folder of the train stage or
            of Hugging Face.
        backbone: Its name; None: detected from the weights.
        base: SAM's weights for a head or decoder; None: those that come with the backbone, if any
            do.
        without_hq: What to do about a file without HQ parameters, which is refused; None: its head
            is fresh, so that only SAM's own masks mean something.

    Raises:
        UserError: Missing or unfitting file, a backbone that cannot be detected, or a head without
            its SAM.
    """
    found = checkpoint.read(path)
    if without_hq is not None and not found.head:
        raise UserError(
            f"this {found.format} file holds no HQ parameters", file=found.path, cure=without_hq
        )
    path = found.path
    name = backbone or checkpoint.backbone_of(found)
    if name is None:
        raise UserError(
            f"the backbone of this {found.format} file cannot be detected",
            file=path,
            cure="give --backbone",
        )
    if found.has_encoder:
        return build_model(ModelOptions.model_construct(backbone=name, checkpoint=path)).eval()
    base = base or backbones.bundled_weights(name)
    if base is None:
        raise UserError(
            f"this {found.format} file holds no image encoder",
            file=path,
            cure=f"give --base, the SAM {name} file",
        )
    variant = str(found.metadata.get("variant", variants.DEFAULT))
    options = ModelOptions.model_construct(backbone=name, checkpoint=base, variant=variant)
    return build_model(options, head=path).eval()
