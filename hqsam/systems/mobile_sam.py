"""MobileSAM (Zhang et al., 2023) by its authors' package ``mobile_sam``.

systems:
sam_hq: {kind: sam_hq}
mobile: {kind: mobile_sam, checkpoint: ../mobile_sam.pt}

`hqsam evaluate --model mobile_sam.pt` runs the same file with this project's own TinyViT; this kind
runs the authors' code. On the package index it is `mobilesam-mirror`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hqsam.systems._packages import PackageKind, PackageModel, PackageOptions, Rules

if TYPE_CHECKING:
    from hqsam.prediction.options import PredictOptions


@dataclass(frozen=True)
class MobileSamKind(PackageKind):
    """See the module."""

    modules = ("mobile_sam",)
    install = "mobilesam-mirror"

    def build(self, module: str, options: PackageOptions, key: str) -> tuple[Any, dict[str, Any]]:
        """See `PackageKind.build`."""
        registry = importlib.import_module(module).sam_model_registry
        return registry["vit_t"](checkpoint=None), {"model_class": "vit_t"}

    def opened(
        self,
        module: str,
        name: str,
        model: Any,
        choose: str,
        options: PredictOptions,
        own: Mapping[str, Any],
    ) -> PackageModel:
        """See `PackageKind.opened`."""
        predictor = importlib.import_module(module).SamPredictor(model)
        side = model.image_encoder.img_size
        rules = Rules(side, side // 4, "longest_side", "linear")
        return PackageModel(name, predictor, rules, choose, options, own)


SYSTEM = MobileSamKind("mobile_sam", PackageOptions)
