"""What a running training is made of, and `last.pt`, from which it goes on bit for bit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hqsam_datasets.atomic import write_bytes
from torch import Tensor

from hqsam.model.hq_decoder import HQHead

LAST = "last.pt"


@dataclass
class Progress:
    """The cursor and the sums of the epoch under way.

    Attributes:
        epoch: epochs finished.
        step: steps done in the epoch under way.
        sums: sums over those steps of BCE and Dice.
        curve: one row per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    curve: list[dict[str, float]] = field(default_factory=list)


@dataclass
class RunState:
    """Everything that changes while training."""

    head: HQHead
    adam: torch.optim.Adam
    generator: torch.Generator
    progress: Progress

    def save(self, folder: Path, fingerprint: str) -> None:
        """Write `last.pt` atomically."""
        buffer = io.BytesIO()
        torch.save(
            {
                "fingerprint": fingerprint,
                "head": self.head.state_dict(),
                "adam": self.adam.state_dict(),
                "generator": self.generator.get_state(),
                "progress": vars(self.progress),
            },
            buffer,
        )
        write_bytes(folder / LAST, buffer.getvalue())

    def restore(self, folder: Path, fingerprint: str) -> bool:
        """Take up `last.pt` if it belongs to this very run; else leave everything as it is.

        Returns:
            Whether the run goes on from there. A file of another run (other options, data or weights), or a
            damaged one, is of no use and is ignored.
        """
        found = _read(folder / LAST)
        if found is None or found.get("fingerprint") != fingerprint:
            return False
        self.head.load_state_dict(found["head"])
        self.adam.load_state_dict(found["adam"])
        self.generator.set_state(found["generator"])
        self.progress = Progress(**found["progress"])
        return True


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        return None
    return found if isinstance(found, dict) else None


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides how a run goes: options, seed, data, base weights, versions."""
    text = json.dumps({**parts, "torch": torch.__version__}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def head_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and float32 bytes of the HQ parameters."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def remove(path: Path) -> None:
    """Delete a file if it is there."""
    if path.exists():
        os.unlink(path)  # noqa: PTH108
