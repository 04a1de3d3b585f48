"""A SAM or HQ-SAM file beside the run's models: one more HQ-SAM, compared with its own SAM.

systems:
sam_hq: {kind: sam_hq}
published: {kind: checkpoint, checkpoint: ../sam_hq_vit_b.pth, output: hq_sum}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hqsam.model.outputs import Output
from hqsam.systems.base import (
    Context,
    Decoded,
    Entry,
    Promptable,
    System,
    SystemKind,
    SystemOptions,
)
from hqsam.systems.sam_hq import SamHQ
from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    from hqsam.model.hq_sam import HQSam
    from hqsam.prediction.options import PredictOptions
    from hqsam.prediction.prompt import Prompt


class CheckpointOptions(SystemOptions):
    """``systems.<name>`` of this kind.

    Attributes:
        checkpoint: A whole SAM or HQ-SAM, or a trained head.
        backbone: Its name; default: detected from the weights.
        base: SAM's weights, if the file holds a head only; default: those that come with the
            backbone.
        output: Which masks: HQ-SAM's ``hq_token`` or ``hq_sum``, which `<name>_sam` then stands
            beside; or ``sam`` alone.
    """

    checkpoint: Path
    backbone: str | None = None
    base: Path | None = None
    output: Output = Output.hq_sum


class Checkpoint(SamHQ):
    """The opened file.

    Args:
        names: Of its systems, and the output that each is.
        model: In eval mode.
        options: How.
        protocol: Which files, and what was taken from them.
    """

    def __init__(
        self,
        names: Mapping[str, Output],
        model: HQSam,
        options: PredictOptions,
        protocol: Mapping[str, Any],
    ) -> None:
        super().__init__(model, options)
        self._names, self.protocol = names, protocol

    def decode(self, image: Any, prompts: Sequence[Prompt]) -> Mapping[str, Decoded]:
        """See `Promptable.decode`."""
        found = super().decode(image, prompts)
        return {name: found[output.value] for name, output in self._names.items()}


class CheckpointKind(SystemKind):
    """See the module."""

    def systems(self, entry: Entry) -> tuple[System, ...]:
        """HQ-SAM's, compared with SAM's of the same file; or SAM's alone."""
        [mine] = super().systems(entry)
        sam = f"{entry.name}_sam"
        if cast(CheckpointOptions, entry.options).output is Output.sam:
            return (mine,)
        beside = System(name=sam, label=f"{mine.label} (SAM)", owner=mine.owner)
        versus = entry.options.versus or sam
        return (beside, System(name=mine.name, label=mine.label, owner=mine.owner, versus=versus))

    def files(self, entry: Entry) -> list[Path]:
        """See `SystemKind.files`."""
        found = _paths(entry)
        for key, path in found.items():
            if not path.is_file():
                raise UserError(
                    "there is no such file",
                    file=path,
                    key=f"systems.{entry.name}.{key}",
                    cure="correct the path",
                )
        return list(found.values())

    def inputs(self, entry: Entry) -> dict[str, str]:
        """See `SystemKind.inputs`; by key, because two files may have one name."""
        return dict(zip(_paths(entry), map(sha256_file, self.files(entry)), strict=True))

    def open(self, entry: Entry, context: Context) -> Promptable:
        """Load the file."""
        from hqsam.model.load import load_any

        options = cast(CheckpointOptions, entry.options)
        alone = options.output is Output.sam
        model = load_any(
            options.checkpoint,
            backbone=options.backbone,
            base=options.base,
            without_hq=None if alone else f"say systems.{entry.name}.output: sam",
        )
        names = {entry.name: options.output}
        if not alone:
            names[f"{entry.name}_sam"] = Output.sam
        protocol = {"files": self.inputs(entry), "backbone": model.backbone.name}
        protocol["used"] = options.output.value
        return Checkpoint(names, model, context.options, protocol)


def _paths(entry: Entry) -> dict[str, Path]:
    options = cast(CheckpointOptions, entry.options)
    found = {"checkpoint": options.checkpoint, "base": options.base}
    return {key: path for key, path in found.items() if path is not None}


SYSTEM = CheckpointKind("checkpoint", CheckpointOptions, int8=True)
