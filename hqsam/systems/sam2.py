"""SAM 2 and 2.1 by Meta's own package ``sam2``.

systems:
sam_hq: {kind: sam_hq}
sam2: {kind: sam2, checkpoint: ../sam2.1_hiera_tiny.pt}

For the models as the transformers library has them: `kind: transformers`. The two resize images
differently (floats here, rounded values there), so that masks differ in single pixels.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam.systems._packages import PackageKind, PackageModel, PackageOptions, Rules
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hqsam.prediction.options import PredictOptions

_SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
_PUBLISHED = re.compile(r"(sam2(?:\.1)?)_hiera_(tiny|small|base_plus|large)")
_CONFIG = re.compile(r"configs/sam2(?:\.1)?/[\w.+]+\.yaml")


class Sam2Options(PackageOptions):
    """``systems.<name>`` of this kind.

    Attributes:
        config: The model's description in the package, such as
            ``configs/sam2.1/sam2.1_hiera_t.yaml``; default: by the checkpoint's published name.
    """

    config: str | None = None


class Sam2Model(PackageModel):
    """An opened model: several levels of features, and boxes that are points."""

    def features(self) -> Any:
        """See `PackageModel.features`."""
        found = self.predictor._features
        return [found["image_embed"].float(), *(level.float() for level in found["high_res_feats"])]

    def ask(
        self,
        features: Any,
        boxes_K22: Tensor | None,
        points_KN2: Tensor | None,
        labels_KN: Tensor | None,
        masks_K1mm: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """See `PackageModel.ask`; as `SAM2ImagePredictor._predict`, without the upscaling of every mask."""
        import torch

        corners = boxes_K22
        if corners is not None:
            labels = torch.tensor([[2, 3]], device=corners.device).repeat(len(corners), 1)
            if points_KN2 is not None and labels_KN is not None:
                corners = torch.cat([corners, points_KN2], dim=1)
                labels = torch.cat([labels, labels_KN], dim=1)
            points_KN2, labels_KN = corners, labels
        model, (embedding, *levels) = self.model, features
        points = None if points_KN2 is None or labels_KN is None else (points_KN2, labels_KN.int())
        sparse, dense = model.sam_prompt_encoder(points=points, boxes=None, masks=masks_K1mm)
        logits, iou, _, _ = model.sam_mask_decoder(
            image_embeddings=embedding,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.multimask,
            repeat_image=len(sparse) > 1,
            high_res_features=levels,
        )
        return logits, iou


@dataclass(frozen=True)
class Sam2Kind(PackageKind):
    """See the module."""

    modules = ("sam2",)
    install = "sam2"

    def build(self, module: str, options: Sam2Options, key: str) -> tuple[Any, dict[str, Any]]:
        """See `PackageKind.build`: with the rule for unstable masks that the package's default has."""
        config = config_of(options, key)
        package = importlib.import_module(module)
        if not _CONFIG.fullmatch(config) or not (Path(package.__path__[0]) / config).is_file():
            raise UserError(
                f"the package has no model {config}",
                key=f"{key}.config",
                cure="name one of its files configs/sam2*/*.yaml",
            )
        builder = importlib.import_module(f"{module}.build_sam")
        return builder.build_sam2(config, ckpt_path=None, device="cpu"), {"model_class": config}

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
        home = importlib.import_module(f"{module}.sam2_image_predictor")
        side = model.image_size
        decoder = model.sam_mask_decoder
        stable = {
            name: getattr(decoder, f"dynamic_multimask_{name}")
            for name in ("via_stability", "stability_delta", "stability_thresh")
        }
        rules = Rules(side, side // 4, "stretch", "sigmoid", clamp=32.0)
        own = {**own, "dynamic_multimask": stable, "object_score": "not used"}
        return Sam2Model(name, home.SAM2ImagePredictor(model), rules, choose, options, own)


def config_of(options: Sam2Options, key: str) -> str:
    """Find the model's description.

    Raises:
        UserError: The checkpoint has no published name, and the description is not given.
    """
    if options.config is not None:
        return options.config
    found = _PUBLISHED.match(options.checkpoint.name)
    if found is None:
        raise UserError(
            "the file's name does not say which model it is",
            file=options.checkpoint,
            key=f"{key}.config",
            cure="give config, such as configs/sam2.1/sam2.1_hiera_t.yaml",
        )
    family, size = found[1], _SIZES[found[2]]
    return f"configs/{family}/{family}_hiera_{size}.yaml"


SYSTEM = Sam2Kind("sam2", Sam2Options)
