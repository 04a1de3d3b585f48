"""Section `overlap` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class OverlapOptions(BaseModel):
    """Section `overlap` of params.yaml.

    Attributes:
        hamming: PDQ bits of 256 that may differ before two pictures are compared on their pixels.
        min_tiles: local features that must agree on one geometry before two pictures are compared
            on their pixels.
        shape_hamming: PDQ bits of 256 in which the outlines of two foregrounds may differ before
            they are compared.
        unresolved: what happens to training images that share content with an evaluation image and
            are listed neither in `keep` nor in `drop`: `exclude` drops them, `stop` ends the run,
            `keep` keeps them and says so.
        keep: keys of training images that a person has looked at and that stay.
        drop: keys of training images that a person has looked at and that go, whatever `unresolved`
            says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hamming: int = Field(default=31, ge=0, le=96)
    min_tiles: int = Field(default=3, ge=3, le=32)
    shape_hamming: int = Field(default=64, ge=0, le=96)
    unresolved: Literal["exclude", "stop", "keep"] = "exclude"
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
