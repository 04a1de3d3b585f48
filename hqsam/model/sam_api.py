"""The one place that imports ``segment_anything``: everything else takes its classes from here.

The package is used as installed; nothing of it is copied or patched. Importing it needs torchvision, which is
repaired first where necessary (see ``_torchvision``).
"""

from __future__ import annotations

from hqsam.model._torchvision import ensure_torchvision

ensure_torchvision()

from segment_anything.modeling import (  # noqa: E402
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segment_anything.modeling.common import LayerNorm2d  # noqa: E402
from segment_anything.modeling.image_encoder import (  # noqa: E402
    Attention,
    get_rel_pos,
)
from segment_anything.modeling.mask_decoder import MLP  # noqa: E402
from segment_anything.utils.transforms import ResizeLongestSide  # noqa: E402

__all__ = [
    "MLP",
    "Attention",
    "ImageEncoderViT",
    "LayerNorm2d",
    "MaskDecoder",
    "PromptEncoder",
    "ResizeLongestSide",
    "Sam",
    "TwoWayTransformer",
    "get_rel_pos",
]
