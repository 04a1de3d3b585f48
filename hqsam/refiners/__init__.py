"""Programs that refine a mask after the segmentation (the post-refinement rivals of the paper's Table 4), found by name.

``load("cascadepsp")`` imports ``hqsam/refiners/cascadepsp.py`` and returns its constant ``REFINER``. There is no list to
edit: a new refiner is one new file. Files whose name begins with an underscore hold what several share. ``hqsam refine``
runs one on predictions that exist; nothing here takes part in a stage of the pipeline.
"""

from __future__ import annotations

import importlib
import pkgutil

from hqsam_datasets.errors import UserError

from hqsam.refiners._base import Opened, Refiner, RefinerOptions

__all__ = ["Opened", "Refiner", "RefinerOptions", "load", "names"]


def names() -> list[str]:
    """Names of the refiners in this folder, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> Refiner:
    """The refiner described by ``refiners/<name>.py``.

    Args:
        name: File stem, e.g. ``cascadepsp``.

    Raises:
        UserError: There is no such file; the message lists the ones that exist.
    """
    if name not in names():
        raise UserError(
            f"unknown refiner {name!r}", key="refiner", cure=f"use one of {', '.join(names())} (hqsam/refiners/)"
        )
    refiner = importlib.import_module(f"{__name__}.{name}").REFINER
    if not isinstance(refiner, Refiner) or refiner.name != name:
        raise TypeError(f"hqsam/refiners/{name}.py: REFINER must satisfy Refiner and be named {name!r}")
    return refiner
