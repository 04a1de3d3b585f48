"""What the rest of the code knows about a variant. Imports no torch: ``params.yaml`` is checked without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hqsam.model.backbones.base import Backbone

if TYPE_CHECKING:
    from hqsam.model.head import Head


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A system of the paper's tables; the constant ``VARIANT`` of each file in this folder.

    Attributes:
        name: Equal to the file's stem.
        paper: The rows of the paper that it is, as ``table: system`` of ``paper_tables.csv``.
        build: Makes what trains, freshly initialised, for a backbone.
        changes_encoder: Whether it encodes images differently from SAM, so that SAM and this system
            need an encoding each.
    """

    name: str
    paper: tuple[str, ...]
    build: Callable[[Backbone], Head]
    changes_encoder: bool = False
