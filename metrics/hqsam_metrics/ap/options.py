"""Options that the AP metrics share, in params.yaml and on the command line. Light at import: no NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from hqsam_base.errors import UserError
from hqsam_metrics.base import BandOptions, Option, check_choice

ScoreRule = Literal["none", "detector", "detector_x_iou"]
IouType = Literal["segm", "boundary"]
AreaRule = Literal["mask", "bbox"]

# The official code of HQ-YTVIS takes predictions at this ratio whatever the ground truth was loaded
# with.
TUBE_DILATION_RATIO = 0.02

Results = Annotated[Path, Option("Results in JSON.", name="--pred", metavar="FILE")]
Truth = Annotated[Path, Option("Annotations in JSON.", name="--gt", metavar="FILE")]
Kind = Annotated[IouType, Option("Mask AP or boundary AP.")]
Ratio = Annotated[
    float,
    Option("Width of the boundary band as a fraction of the image diagonal (0.02; strict: 0.01)."),
]
Agnostic = Annotated[bool, Option("Match whatever the category (UVO).", name="--class-agnostic")]
MaxDets = Annotated[
    int | None, Option("Detections that count; default: the protocol's own number.", least=1)
]
Area = Annotated[
    AreaRule,
    Option(
        "bbox: as the official loader does when the results have a `bbox` key; moves APs, APm, APl."
    ),
]
Workers = Annotated[int, Option("Processes; changes no number.", least=1)]


@dataclass(frozen=True)
class DetectionOptions(BandOptions):
    """Options of a metric of detections with a confidence.

    Attributes:
        score_rule: confidence of a detection: the detector's, or the detector's times the predicted
            IoU.
        max_dets: detections that count, an image (LVIS) or an image and category (COCO); None: the
            metric's own.
    """

    score_rule: ScoreRule = "none"
    max_dets: int | None = None

    def __post_init__(self) -> None:
        """Checks values."""
        super().__post_init__()
        check_choice(self.score_rule, ScoreRule, "score.score_rule")
        if self.max_dets is not None and self.max_dets < 1:
            raise UserError(f"score.max_dets is {self.max_dets}: it must be at least 1")
