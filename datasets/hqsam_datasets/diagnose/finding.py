"""What is found about images and masks, one statement at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement about the folder, with the files that it is about."""

    level: Level
    text: str
    files: tuple[str, ...] = ()
