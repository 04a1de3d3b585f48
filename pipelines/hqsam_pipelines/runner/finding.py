"""One line of what `hqsam doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the examination: `fail` means that a run would fail, `warn` that it may disappoint."""

    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str

    @property
    def mark(self) -> str:
        """The level as it is printed."""
        return {"ok": "ok", "warn": "WARN", "fail": "FAIL"}[self.level]
