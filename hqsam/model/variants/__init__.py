"""The systems of the paper's tables that are models, one file each, found by name.

``load("lora_encoder")`` imports ``hqsam/model/variants/lora_encoder.py`` and returns its constant
``VARIANT``. There is no list to edit: a new system is one new file; ``variant: NAME`` of a model in
``params.yaml`` chooses it. Files with a leading underscore hold what several variants share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hqsam.model.backbones.base import Backbone
from hqsam.model.variants._base import Variant
from hqsam_base.seam import Seam

if TYPE_CHECKING:
    from hqsam.model.head import Head

__all__ = ["DEFAULT", "Variant", "build", "load", "names"]

DEFAULT = "hq"

_SEAM = Seam(package=__name__, what="variant", constant="VARIANT", kind=Variant)
names = _SEAM.names
load = _SEAM.load


def build(name: str, backbone: Backbone) -> Head:
    """Return a fresh head of a variant, not yet attached to a SAM.

    Raises:
        UserError: Unknown variant.
    """
    variant = load(name)
    head = variant.build(backbone)
    if head.changes_encoder != variant.changes_encoder:
        raise TypeError(
            f"hqsam/model/variants/{name}.py: VARIANT and its head disagree about changes_encoder"
        )
    head.variant = name
    return head
