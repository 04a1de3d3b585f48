"""Section `quality` of params.yaml."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class QualityOptions(BaseModel):
    """Section `quality` of params.yaml.

    Attributes:
        min_side: the shorter side of any image, pixels, is at least this.
        fg_fraction: least and largest share of a training image that its foreground (the largest
            instance) may cover.
        soft_fraction: largest share of a mask that may be neither 0 nor 255.
        reject_fraction: largest share of a source's pairs that normalise may have rejected; known
            bad and stray files, crowd regions and images without objects aside.
        box_tolerance: pixels by which a prompt box may reach over the frame (detectors round).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_side: int = Field(default=32, ge=1)
    fg_fraction: tuple[float, float] = (0.001, 0.98)
    soft_fraction: float = Field(default=0.5, ge=0, le=1)
    reject_fraction: float = Field(default=0.05, ge=0, le=1)
    box_tolerance: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _range(self) -> QualityOptions:
        low, high = self.fg_fraction
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"fg_fraction must be two rising numbers in 0..1, not {list(self.fg_fraction)}"
            )
        return self
