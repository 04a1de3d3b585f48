"""Exact and fast segmentation metrics: IoU, boundary IoU, COCO / LVIS / YouTube-VIS AP, DAVIS J&F.

Only NumPy is imported here; everything else when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hqsam_base.errors import UserError
    from hqsam_metrics.masks.iou import boundary_band, boundary_iou, mask_iou

__version__ = "0.1.0"
__all__ = ["UserError", "__version__", "boundary_band", "boundary_iou", "mask_iou"]

_HOMES = {
    "UserError": "hqsam_base.errors",
    "boundary_band": "hqsam_metrics.masks.iou",
    "boundary_iou": "hqsam_metrics.masks.iou",
    "mask_iou": "hqsam_metrics.masks.iou",
}


def __getattr__(name: str) -> Any:
    """Imports the public functions on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hqsam_metrics' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
