"""HQ-SAM on top of the installed ``segment_anything``: model, training, prediction.

The names below are what people who come from ``segment_anything`` look for. They are resolved on
first use (PEP 562), so ``import hqsam`` alone costs nothing and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hqsam.api.mask_generator import SamHQAutomaticMaskGenerator
    from hqsam.api.predictor import SamHQPredictor
    from hqsam.model.build import build_sam_hq

__all__ = ["SamHQAutomaticMaskGenerator", "SamHQPredictor", "build_sam_hq"]

_HOMES = {
    "SamHQAutomaticMaskGenerator": "hqsam.api.mask_generator",
    "SamHQPredictor": "hqsam.api.predictor",
    "build_sam_hq": "hqsam.model.build",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first access."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hqsam' has no attribute {name!r}")
