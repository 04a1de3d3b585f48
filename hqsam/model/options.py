"""What params.yaml says about a model (``models.<name>``); shared by training and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from hqsam.model import backbones, variants
from hqsam_base.errors import UserError

# Here and not beside their use: whoever checks params.yaml reads these, without torch.
Resize = Literal["stretch", "longest_side"]
MaskEncoding = Literal["binary_255", "logits"]


class ModelOptions(BaseModel):
    """One entry of ``models``.

    Attributes:
        backbone: Name of a file in ``hqsam/model/backbones``.
        checkpoint: SAM's weights, relative to the repository (any format of
            ``hqsam.model.checkpoint``); None gives random weights, for tests.
        variant: Name of a file in ``hqsam/model/variants``: which of the paper's systems is trained
            on top of SAM.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    checkpoint: Path | None = None
    variant: str = variants.DEFAULT

    @field_validator("backbone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in backbones.names():
            raise ValueError(f"unknown backbone {name!r}; there are {', '.join(backbones.names())}")
        return name

    @field_validator("variant")
    @classmethod
    def _known_variant(cls, name: str) -> str:
        if name not in variants.names():
            raise ValueError(f"unknown variant {name!r}; there are {', '.join(variants.names())}")
        return name

    def load_backbone(self) -> backbones.Backbone:
        """The backbone's description.

        Raises:
            UserError: The file of that name does not describe it.
        """
        try:
            return backbones.load(self.backbone)
        except TypeError as error:
            raise UserError(str(error), key="backbone") from error
