"""Backbones, one file each, found by name.

``load("vit_b")`` imports ``hqsam/model/backbones/vit_b.py`` and returns its constant ``BACKBONE``. There is
no list to edit: a new backbone is one new file (and its entry under ``models`` in ``params.yaml``).
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from hqsam_datasets.errors import UserError

from hqsam.model.backbones.base import Backbone

__all__ = ["Backbone", "bundled_weights", "load", "names"]

_NOT_BACKBONES = frozenset({"base"})


def names() -> list[str]:
    """Names of the backbones in this folder, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_BACKBONES)


def load(name: str) -> Backbone:
    """The backbone described by ``backbones/<name>.py``.

    Args:
        name: File stem, e.g. ``vit_l``.

    Raises:
        UserError: There is no such file; the message lists the ones that exist.
    """
    if name not in names():
        raise UserError(
            f"unknown backbone {name!r}",
            key="backbone",
            cure=f"use one of {', '.join(names())} (hqsam/model/backbones/)",
        )
    backbone = importlib.import_module(f"{__name__}.{name}").BACKBONE
    if not isinstance(backbone, Backbone) or backbone.name != name:
        raise TypeError(f"hqsam/model/backbones/{name}.py: BACKBONE must be a Backbone named {name!r}")
    return backbone


def bundled_weights(name: str) -> Path | None:
    """SAM weights that lie beside the backbone's file (``nano``), if there are any."""
    path = Path(__file__).parent / f"{name}.safetensors"
    return path if path.is_file() else None
