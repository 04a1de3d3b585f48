"""Training sources, one file each, found by name.

A new source is one file here that exposes `SOURCE` (see `base.Source`), and an entry `sources.<name>` in params.yaml.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from hqsam_datasets.errors import UserError
from hqsam_datasets.sources.base import Source

_NOT_SOURCES = frozenset({"base", "folders", "annotations"})


def names() -> list[str]:
    """Names of all sources: the files of this folder, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in found if name not in _NOT_SOURCES)


@functools.cache
def load(name: str) -> Source:
    """The source of this name.

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
    source: Source = importlib.import_module(f"{__name__}.{name}").SOURCE
    return source
