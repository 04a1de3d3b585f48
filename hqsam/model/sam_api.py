"""The one place that imports ``segment_anything``: everything else takes its classes from here.

The package is used as installed; nothing of it is copied or patched. But only its ``modeling``
folder is loaded: the package's own ``__init__`` imports torchvision, which takes three seconds in
every process, fails beside a torch of another build (see ``_torchvision``), and is used for an
image resize and box utilities that this project does not need.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hqsam.model._torchvision import ensure_torchvision

_ALIAS = "hqsam.model._segment_anything_modeling"


def _folder() -> Path:
    """Where the package is installed; it is found, not executed."""
    package = importlib.util.find_spec("segment_anything")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'segment_anything'", name="segment_anything")
    return Path(package.submodule_search_locations[0])


def _load_modeling() -> ModuleType:
    """``segment_anything.modeling`` under a private name: a user's own ``import segment_anything`` stays whole."""
    folder = _folder() / "modeling"
    return _load_file(_ALIAS, folder / "__init__.py", [str(folder)]) or _load_package(
        "segment_anything.modeling"
    )


def _load_file(name: str, file: Path, search: list[str] | None = None) -> ModuleType | None:
    """A module from its file, or None for a layout that is not the one of segment-anything 1.0."""
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=search)
    if spec is None or spec.loader is None or not file.is_file():
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def amg() -> Any:
    """``segment_anything.utils.amg``: geometry and run lengths of the automatic mask generator."""
    return _load_file(f"{_ALIAS}_amg", _folder() / "utils" / "amg.py") or _load_package(
        "segment_anything.utils.amg"
    )


def _load_package(name: str) -> ModuleType:
    """The usual way, with everything that the package imports."""
    ensure_torchvision()
    return importlib.import_module(name)


if TYPE_CHECKING:
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
    from segment_anything.modeling.mask_decoder import MLP
else:
    _modeling = _load_modeling()
    ImageEncoderViT = _modeling.ImageEncoderViT
    MaskDecoder = _modeling.MaskDecoder
    PromptEncoder = _modeling.PromptEncoder
    Sam = _modeling.Sam
    TwoWayTransformer = _modeling.TwoWayTransformer
    LayerNorm2d = importlib.import_module(f"{_modeling.__name__}.common").LayerNorm2d
    Attention = importlib.import_module(f"{_modeling.__name__}.image_encoder").Attention
    Block = importlib.import_module(f"{_modeling.__name__}.image_encoder").Block
    get_rel_pos = importlib.import_module(f"{_modeling.__name__}.image_encoder").get_rel_pos
    MLP = importlib.import_module(f"{_modeling.__name__}.mask_decoder").MLP

__all__ = [
    "MLP",
    "Attention",
    "Block",
    "ImageEncoderViT",
    "LayerNorm2d",
    "MaskDecoder",
    "PromptEncoder",
    "Sam",
    "TwoWayTransformer",
    "amg",
    "get_rel_pos",
]
