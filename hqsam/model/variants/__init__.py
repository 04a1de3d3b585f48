"""The systems of the paper's tables that are models, one file each, found by name.

``load("lora_encoder")`` imports ``hqsam/model/variants/lora_encoder.py`` and returns its constant ``VARIANT``. There is
no list to edit: a new system is one new file; ``variant: NAME`` of a model in ``params.yaml`` chooses it. Files whose name
begins with an underscore hold what several variants share.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from hqsam_datasets.errors import UserError

from hqsam.model.backbones.base import Backbone
from hqsam.model.variants._base import Variant

if TYPE_CHECKING:
    from hqsam.model.head import Head

__all__ = ["DEFAULT", "Variant", "build", "load", "names"]

DEFAULT = "hq"


def names() -> list[str]:
    """Names of the variants in this folder, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> Variant:
    """The variant described by ``variants/<name>.py``.

    Args:
        name: File stem, e.g. ``fpn_fusion``.

    Raises:
        UserError: There is no such file; the message lists the ones that exist.
    """
    if name not in names():
        raise UserError(
            f"unknown variant {name!r}",
            key="variant",
            cure=f"use one of {', '.join(names())} (hqsam/model/variants/)",
        )
    variant = importlib.import_module(f"{__name__}.{name}").VARIANT
    if not isinstance(variant, Variant) or variant.name != name:
        raise TypeError(f"hqsam/model/variants/{name}.py: VARIANT must be a Variant named {name!r}")
    return variant


def build(name: str, backbone: Backbone) -> Head:
    """A fresh head of a variant, not yet attached to a SAM.

    Raises:
        UserError: Unknown variant.
    """
    variant = load(name)
    head = variant.build(backbone)
    if head.changes_encoder != variant.changes_encoder:
        raise TypeError(f"hqsam/model/variants/{name}.py: VARIANT and its head disagree about changes_encoder")
    head.variant = name
    return head
