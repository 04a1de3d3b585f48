"""Post-refinement of masks, found by name: the baselines of the paper's Table 4.

``load("cascadepsp")`` imports ``hqsam/refiners/cascadepsp.py`` and returns its constant
``REFINER``. There is no list to edit: a new refiner is one new file. Files with a leading
underscore hold what several share. ``hqsam refine`` runs one on predictions that exist; nothing
here takes part in a stage of the pipeline.
"""

from __future__ import annotations

from hqsam.refiners._base import Opened, Refiner, RefinerOptions
from hqsam_base.seam import Seam

__all__ = ["Opened", "Refiner", "RefinerOptions", "load", "names"]

_SEAM = Seam(package=__name__, what="refiner", constant="REFINER", kind=Refiner)  # type: ignore[type-abstract]
names = _SEAM.names
load = _SEAM.load
