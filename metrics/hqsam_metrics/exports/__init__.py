"""Predictions in the file formats of other programs and servers, one file a format, found by name.

``load("coco")`` returns the constant ``EXPORT`` of ``hqsam_metrics/exports/coco.py``.
"""

from __future__ import annotations

from hqsam_base.seam import Seam
from hqsam_metrics.exports.base import Export

__all__ = ["Export", "load", "names"]

_SEAM = Seam(
    package=__name__,
    what="export format",
    constant="EXPORT",
    kind=Export,  # type: ignore[type-abstract]
    helpers=frozenset({"base"}),
)
names = _SEAM.names
load = _SEAM.load
