"""What one pass of HQ-SAM gives: the names of its three masks, here and nowhere else."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

OutputName = Literal["hq_sum", "hq_token", "sam"]
"""The names as those give them who call from Python."""


class Output(StrEnum):
    """A mask of HQ-SAM for one prompt."""

    hq_sum = "hq_sum"
    """SAM's logits plus the HQ token's: the paper's default (section 3.3)."""
    hq_token = "hq_token"
    """The HQ token's mask alone."""
    sam = "sam"
    """Vanilla SAM's, from its own decoder."""
