"""EfficientViT-SAM (Zhang et al., 2024) by its authors' package: ``efficientvit``, on the package index ``efficientsam``.

systems:
sam_hq: {kind: sam_hq}
efficient: {kind: efficientvit_sam, model: efficientvit-sam-l0, checkpoint: ../efficientvit_sam_l0.pt}

The image is encoded at 512 pixels (l0 to l2) or 1024 (xl), prompts and masks belong to a square of
1024. The package ``efficientsam`` is not Meta's EfficientSAM.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hqsam.systems._packages import PackageKind, PackageModel, PackageOptions, Rules

if TYPE_CHECKING:
    from hqsam.prediction.options import PredictOptions


class EfficientVitSamOptions(PackageOptions):
    """``systems.<name>`` of this kind.

    Attributes:
        model: Its name in the package.
    """

    model: Literal[
        "efficientvit-sam-l0",
        "efficientvit-sam-l1",
        "efficientvit-sam-l2",
        "efficientvit-sam-xl0",
        "efficientvit-sam-xl1",
    ]


@dataclass(frozen=True)
class EfficientVitSamKind(PackageKind):
    """See the module."""

    modules = ("efficientsam", "efficientvit")
    install = "efficientsam"

    def build(
        self, module: str, options: EfficientVitSamOptions, key: str
    ) -> tuple[Any, dict[str, Any]]:
        """See `PackageKind.build`."""
        zoo = importlib.import_module(f"{module}.sam_model_zoo")
        # By default it looks for a file of weights in a folder of its own.
        model = zoo.create_efficientvit_sam_model(options.model, pretrained=False)
        return model, {"model_class": options.model, "encoder_side": model.image_size[1]}

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
        home = importlib.import_module(f"{module}.models.efficientvit.sam")
        side = model.image_size[0]
        rules = Rules(side, side // 4, "longest_side", "linear")
        predictor = home.EfficientViTSamPredictor(model)
        return PackageModel(name, predictor, rules, choose, options, own)


SYSTEM = EfficientVitSamKind("efficientvit_sam", EfficientVitSamOptions)
