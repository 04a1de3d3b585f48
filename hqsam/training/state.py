"""What a running training is made of, and `last.pt`, from which it goes on bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hqsam.model.checkpoint import is_finite
from hqsam.training.group import Group
from hqsam_base.atomic import write_bytes
from hqsam_base.errors import UserError

LAST = "last.pt"
_SHOWN = 6


@dataclass
class TrainProgress:
    """The cursor and the sums of the epoch under way.

    Attributes:
        epoch: epochs finished.
        step: steps done in the epoch under way.
        sums: sums over those steps of BCE and Dice.
        curve: one row per finished epoch.
        micro_batch: views per pass that the run began with.
        best: highest score of an epoch so far.
        losses: BCE and Dice of each step so far.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    curve: list[dict[str, float]] = field(default_factory=list)
    micro_batch: int = 0
    best: float = float("-inf")
    losses: list[tuple[float, float]] = field(default_factory=list)

    def add(self, bce: float, dice: float) -> None:
        """Count a step."""
        self.step += 1
        self.sums = [self.sums[0] + bce, self.sums[1] + dice]
        self.losses.append((bce, dice))


@dataclass
class RunState:
    """Everything that changes while training.

    Attributes:
        parameters: what trains, by name.
        adam: its optimiser.
        generator: of this process's loss points.
        progress: the cursor.
        average: moving average of the parameters; empty: none is kept.
    """

    parameters: dict[str, nn.Parameter]
    adam: torch.optim.Adam
    generator: torch.Generator
    progress: TrainProgress
    average: dict[str, Tensor] = field(default_factory=dict)

    def save(self, folder: Path, identity: Mapping[str, Any], group: Group) -> None:
        """Write `last.pt` atomically. All processes call it at the same step; the first one writes."""
        generators = group.gather(self.generator.get_state())
        if group.leads:
            self.write(folder, identity, generators)

    def write(
        self, folder: Path, identity: Mapping[str, Any], generators: Sequence[Tensor]
    ) -> None:
        """Write `last.pt` atomically.

        Args:
            folder: where.
            identity: what the run is.
            generators: the random states of all processes at the cursor.

        Raises:
            UserError: the parameters are not finite: the file of before, from which the run can go
                on, is kept.
        """
        self.check_finite(folder / LAST)
        buffer = io.BytesIO()
        torch.save(
            {
                "identity": dict(identity),
                "parameters": {name: p.detach() for name, p in self.parameters.items()},
                "adam": self.adam.state_dict(),
                "generators": list(generators),
                "progress": vars(self.progress),
                "average": self.average,
            },
            buffer,
        )
        write_bytes(folder / LAST, buffer.getvalue())

    def check_finite(self, path: Path) -> None:
        """Refuse to keep parameters that a gradient without bounds has spoiled; the loss shows it a step later.

        Raises:
            UserError: naming the file that is not written.
        """
        broken = [name for name, parameter in self.parameters.items() if not is_finite(parameter)]
        if broken:
            raise UserError(
                f"{len(broken)} of {len(self.parameters)} trained parameters are no longer finite "
                f"after epoch "
                f"{self.progress.epoch}, step {self.progress.step}",
                file=path,
                key=broken[0],
                cure="lower train.lr and delete last.pt to begin anew; last.pt, if there is one, "
                "holds the run as it was "
                "last saved",
            )

    def restore(
        self, folder: Path, identity: Mapping[str, Any], group: Group, say: Callable[[str], None]
    ) -> bool:
        """Take up `last.pt`, if there is one.

        Args:
            folder: where it lies.
            identity: what the run is.
            group: the processes.
            say: is told if the file is damaged: it is of no use then, and the run begins anew.

        Returns:
            Whether the run resumes from there.

        Raises:
            UserError: the file is of another run: other data, base model, options or number of
                processes. Going on would mix the two, and beginning anew would throw the stopped
                one away.
        """
        found = _read(folder / LAST)
        if found is None or "identity" not in found:
            if (folder / LAST).exists():
                say(f"{folder / LAST} is damaged: the training begins anew")
            return False
        refuse_another_run(folder / LAST, found["identity"], identity)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found["parameters"][name])
        self.adam.load_state_dict(found["adam"])
        self.generator.set_state(found["generators"][group.rank])
        self.progress = TrainProgress(**found["progress"])
        self.average = {k: v.to(self.parameters[k].device) for k, v in found["average"].items()}
        return True

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average towards the parameters; it begins as the parameters after the first step."""
        for name, parameter in self.parameters.items():
            if name in self.average:
                self.average[name].lerp_(parameter.detach(), 1 - decay)
            else:
                self.average[name] = parameter.detach().clone()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged parameters in the model's place, if an average is kept."""
        with torch.no_grad():
            before = {name: self.parameters[name].detach().clone() for name in self.average}
            for name, value in self.average.items():
                self.parameters[name].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in before.items():
                    self.parameters[name].copy_(value)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        struct.error,
        pickle.UnpicklingError,
    ):
        return None
    return found if isinstance(found, dict) else None


def refuse_another_run(path: Path, found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Compare what decides how two runs go.

    Raises:
        UserError: they differ; the message says in what.
    """
    theirs, mine = _flat(found), _flat(own)
    keys = [k for k in sorted(theirs.keys() | mine.keys()) if theirs.get(k) != mine.get(k)]
    if not keys:
        return
    rows = [f"{k}: {_show(theirs.get(k))} there, {_show(mine.get(k))} now" for k in keys[:_SHOWN]]
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    raise UserError(
        f"the training that was stopped here is another one ({'; '.join(rows)}{more})",
        file=path,
        key=keys[0],
        cure=f"bring these back to go on with it, or delete {path.name} to begin anew",
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for key, part in value.items():
        rows |= (
            _flat(part, f"{prefix}{key}.") if isinstance(part, Mapping) else {prefix + key: part}
        )
    return rows


def _show(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


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
