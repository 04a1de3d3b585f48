"""One proved overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hqsam_datasets.overlap.candidates import Candidate
from hqsam_datasets.overlap.verify import Evidence, Kind


@dataclass(frozen=True)
class Pair:
    """A proved overlap.

    `other` is a row of the evaluation images, or of the training images if `scope` is `train`.
    """

    scope: Literal["eval", "train"]
    train: int
    other: int
    kind: Kind
    candidate: Candidate
    evidence: Evidence
