"""Training sources, one file each, found by name.

A new source is one file here that exposes `SOURCE` (see `base.Source`), and an entry
`sources.<name>` in params.yaml.
"""

from __future__ import annotations

import functools

from hqsam_base.errors import UserError
from hqsam_base.seam import Seam
from hqsam_datasets.sources.base import Source

_SEAM = Seam(
    package=__name__,
    what="training source",
    constant="SOURCE",
    kind=Source,  # type: ignore[type-abstract]
    helpers=frozenset({"base", "folders", "annotations", "own", "skip"}),
)
names = _SEAM.names


@functools.cache
def load(name: str) -> Source:
    """Return the source of this name.

    Raises:
        UserError: for an unknown name; the message lists what exists.
    """
    if name not in names():
        raise UserError(
            f"there is no training source {name!r}",
            file="params.yaml",
            key=f"sources.{name}",
            cure=f"use one of {', '.join(names())}, or name one of them as its kind",
        )
    return _SEAM.load(name)
