"""The progress callback of all stages."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Told how far a stage is; it must be cheap and must not raise."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """`done` of `total` units (0 = unknown) of `what` are finished."""
