"""Backbones, one file each, found by name.

``load("vit_b")`` imports ``hqsam/model/backbones/vit_b.py`` and returns its constant ``BACKBONE``.
There is no list to edit: a new backbone is one new file (and its entry under ``models`` in
``params.yaml``).
"""

from __future__ import annotations

from pathlib import Path

from hqsam.model.backbones.base import Backbone
from hqsam_base.seam import Seam

__all__ = ["Backbone", "bundled_weights", "load", "names"]

_SEAM = Seam(
    package=__name__,
    what="backbone",
    constant="BACKBONE",
    kind=Backbone,
    helpers=frozenset({"base"}),
)
names = _SEAM.names
load = _SEAM.load


def bundled_weights(name: str) -> Path | None:
    """SAM weights that lie beside the backbone's file (``nano``), if there are any."""
    path = Path(__file__).parent / f"{name}.safetensors"
    return path if path.is_file() else None
