"""A model from whatever file a user has."""

from __future__ import annotations

from pathlib import Path

from hqsam_datasets.errors import UserError

from hqsam.model import backbones, checkpoint, variants
from hqsam.model.build import build_model
from hqsam.model.hq_sam import HQSam
from hqsam.model.options import ModelOptions

HEAD = "hq_head.safetensors"


def load_any(path: Path, *, backbone: str | None = None, base: Path | None = None) -> HQSam:
    """Load a checkpoint of any format, in eval mode on the CPU.

    Args:
        path: A whole SAM or HQ-SAM; a trained head or decoder; or the folder of the train stage.
        backbone: Its name; None: told by the weights.
        base: SAM's weights for a head or decoder; None: those that come with the backbone, if any do.

    Raises:
        UserError: Missing or unfitting file, a backbone that cannot be told, or a head without its SAM.
    """
    path = path / HEAD if path.is_dir() else path
    found = checkpoint.read(path)
    name = backbone or checkpoint.backbone_of(found)
    if name is None:
        raise UserError(f"the backbone of this {found.format} file cannot be told", file=path, cure="give --backbone")
    if found.has_encoder:
        return build_model(ModelOptions.model_construct(backbone=name, checkpoint=path)).eval()
    base = base or backbones.bundled_weights(name)
    if base is None:
        raise UserError(
            f"this {found.format} file holds no image encoder", file=path, cure=f"give --base, the SAM {name} file"
        )
    variant = str(found.metadata.get("variant", variants.DEFAULT))
    options = ModelOptions.model_construct(backbone=name, checkpoint=base, variant=variant)
    return build_model(options, head=path).eval()
