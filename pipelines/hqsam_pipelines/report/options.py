"""Section `report` of params.yaml. Light at import: whoever reads params.yaml needs it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, le=48)]


class ReportOptions(BaseModel):
    """Section ``report`` of ``params.yaml``.

    Attributes:
        best, worst, improved, worsened: how many pictures of each kind; each kind is spread over
            the benchmarks.
        typical: show for each benchmark the instance whose gain over SAM is the median.
        hero: rows of ``figures/hero.png``.
        systems: how many pictures of each system beside SAM and HQ-SAM (section ``systems``).
        figures: how many pictures of each of the paper's Figures 7 and 9 to 14.
        attention: rows of Figure 6; the model runs for them.
        panel: width and height of a panel in pixels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    best: Count = 4
    worst: Count = 4
    improved: Count = 4
    worsened: Count = 4
    typical: bool = True
    systems: Count = 6
    hero: Annotated[int, Field(ge=0, le=8)] = 4
    figures: Count = 6
    attention: Annotated[int, Field(ge=0, le=8)] = 3
    panel: Annotated[int, Field(ge=96, le=640)] = 208
