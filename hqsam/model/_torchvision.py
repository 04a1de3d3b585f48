"""Make ``import torchvision`` work when its compiled operators do not match the installed torch.

A torchvision wheel built for another torch build (CUDA wheel beside a CPU torch, or the other way
round) cannot load its shared library. The package then fails on import with ``operator
torchvision::nms does not exist``, because it registers shape functions for operators that were
never declared. ``segment_anything`` imports torchvision only for an image resize and for box
utilities that this project does not use, so declaring the two missing operator *schemas* is enough:
the import succeeds, and calling them still fails loudly (they have no kernel).
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@functools.cache
def ensure_torchvision() -> bool:
    """Import torchvision; declare its missing operators if, and only if, the import fails for lack of them.

    Returns:
        True if the operators had to be declared (their kernels are then missing), False if the
        import just worked.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: it fails for another reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return False
    import torch

    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)
    _LIBRARIES.append(library)
    # Drop what the failed import left in `sys.modules`, so that the second try starts afresh
    for name in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
        del sys.modules[name]
    importlib.import_module("torchvision")
    return True


_LIBRARIES: list[
    object
] = []  # a torch.library.Library takes its declarations back when it is garbage-collected
