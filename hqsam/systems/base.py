"""What a system of a run is: what tables show of it, its kind, and the opened model behind it.

Nothing here imports torch: report and comparison read these records, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from hqsam_base.digest import sha256_file

if TYPE_CHECKING:
    from hqsam.model.options import ModelOptions
    from hqsam.prediction.options import PredictOptions
    from hqsam.prediction.postprocess import MaskCodes, MaskPatch
    from hqsam.prediction.prompt import Prompt

U8 = NDArray[np.uint8]
BoolMask = NDArray[np.bool_]
Part = Literal["box", "points", "mask"]
ALL_PARTS: frozenset[Part] = frozenset({"box", "points", "mask"})


@dataclass(frozen=True, kw_only=True)
class System:
    """One set of masks for every prompt of a run.

    Attributes:
        name: what predictions, scores and `score.output` call it.
        label: what tables call it.
        owner: whose masks they are: systems of one owner are variants of one another, and short
            tables show one of them.
        versus: name of the system that it is compared with; None: it is a baseline.
    """

    name: str
    label: str
    owner: str
    versus: str | None = None


class SystemOptions(BaseModel):
    """``systems.<name>`` of params.yaml; a kind with keys of its own derives from this.

    Attributes:
        kind: A file of ``hqsam/systems``.
        label: What tables call the system; default: the kind's choice.
        versus: The system that it is compared with; default: the kind's choice, else ``sam`` if the
            run has it.
        models: Models of params.yaml beside whose masks it is predicted; default: the first one, so
            that a run of many models predicts it once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    label: str | None = None
    versus: str | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """An entry of ``systems``: its name and its checked options."""

    name: str
    options: SystemOptions


@dataclass(frozen=True)
class Context:
    """What the predict stage has to offer a system.

    Attributes:
        model: The model of params.yaml whose predictions are made; None where only other systems
            are predicted, which need none.
        head: File of its trained head.
        options: Protocol and sizes of the benchmark.
        encodings: Folder for what the model's image encoder makes of the images, which other models
            of the run share; None: nobody else needs it.
    """

    model: ModelOptions | None
    head: Path | None
    options: PredictOptions
    encodings: Path | None = None


@dataclass(frozen=True)
class Decoded:
    """The masks of P prompts.

    Attributes:
        values: P of whatever `Promptable.to_image` takes: low-resolution logits, or whole masks.
        iou: P predicted IoUs, 0..1.
    """

    values: Sequence[Any] | NDArray[np.float32]
    iou: Sequence[float]


class Promptable(ABC):
    """An opened model: an image and prompts to masks, of one system or several from one encoding.

    Prompts reach it checked, in pixels of the image, and grouped: those of one call have the same
    parts and number of points, so that nothing needs to be padded.

    Attributes:
        takes: the parts of prompts that it can use.
        protocol: what can move the numbers of its systems, for the protocol block: versions,
            digests, sizes, rules. What the block holds already (``resize``) is overridden by an
            entry of the same name.
    """

    takes: frozenset[Part] = ALL_PARTS
    protocol: Mapping[str, Any] = {}

    @abstractmethod
    def prepare(self, image: U8) -> Any:
        """Resize an image, uint8 [H, W, 3] RGB; called from several threads."""

    @abstractmethod
    def encode(self, prepared: Sequence[Any]) -> Sequence[Any]:
        """Encode images together.

        Args:
            prepared: what `prepare` gave for each.

        Returns:
            One object per image, which `decode` and `to_image` get.
        """

    @abstractmethod
    def decode(self, image: Any, prompts: Sequence[Prompt]) -> Mapping[str, Decoded]:
        """Predict prompts of one signature in an encoded image, for every system (by name)."""

    def as_input(self, values: Any) -> NDArray[np.float32] | None:
        """Give one of `Decoded.values` as the mask input of the next prompt, [m, m]; None: it is none.

        What interactive prompt sets feed back (`hqsam.prediction.clicks`).
        """
        return None

    @abstractmethod
    def to_image(self, image: Any, values: Any) -> MaskPatch:
        """Bring one of `Decoded.values` to the image's own size; called from several threads."""

    def to_codes(self, image: Any, values: Sequence[Any] | NDArray[np.float32]) -> MaskCodes:
        """Bring all of `Decoded.values` to the image's own size, as run-length codes; called from several threads.

        Overridden where that is faster for many together.
        """
        from hqsam.prediction.postprocess import MaskCodes

        return MaskCodes.of([self.to_image(image, value) for value in values])


class Derived(ABC):
    """An opened system that changes another system's masks, such as a refiner.

    Attributes:
        of: name of that system.
        protocol: see `Promptable`.
    """

    of: str
    protocol: Mapping[str, Any] = {}

    @abstractmethod
    def refine(self, image: U8, mask: BoolMask) -> BoolMask:
        """Change one mask: image uint8 [H, W, 3] RGB, mask bool [H, W] in and out."""


@dataclass(frozen=True)
class SystemKind(ABC):
    """A kind of system: the constant ``SYSTEM`` of a file.

    Attributes:
        name: the file's stem.
        options: class of its entry in params.yaml.
        every_model: whether its masks are those of the run's models, so that it is predicted for
            each of them.
        int8: whether it heeds ``predict.precision: int8``, or encodes nothing.
    """

    name: str
    options: type[SystemOptions] = field(default=SystemOptions)
    every_model: bool = False
    int8: bool = False

    def systems(self, entry: Entry) -> tuple[System, ...]:
        """Say which systems an entry gives: one of its own name, unless the kind knows better.

        Needs no model and imports no torch.
        """
        label = entry.options.label or entry.name
        return (System(name=entry.name, label=label, owner=label, versus=entry.options.versus),)

    def files(self, entry: Entry) -> list[Path]:
        """Check what `open` reads, as far as that takes neither torch nor a network, and list it.

        Called by every entry point before anything is fetched or encoded; DVC watches the files.

        Raises:
            UserError: see `open`.
        """
        return []

    def inputs(self, entry: Entry) -> dict[str, str]:
        """Check what `open` reads, and give its digests by name.

        Raises:
            UserError: see `open`.
        """
        return {path.name: sha256_file(path) for path in self.files(entry)}

    @abstractmethod
    def open(self, entry: Entry, context: Context) -> Promptable | Derived:
        """Load what is needed to predict.

        Raises:
            UserError: a package, a folder or weights are missing or do not fit together.
        """


@dataclass(frozen=True)
class Given:
    """What is known of masks that exist already.

    Attributes:
        protocol: see `Promptable`.
        unsupported: prompt sets of the benchmark that they say nothing about.
    """

    protocol: Mapping[str, Any]
    unsupported: tuple[str, ...] = ()


class GivenKind(SystemKind):
    """A kind whose masks exist already: no image is read for it, and it needs no device."""

    def open(self, entry: Entry, context: Context) -> Promptable | Derived:
        """Never called: see `write`."""
        raise NotImplementedError

    @abstractmethod
    def check(self, entry: Entry, benchmark: str, kind: str, folder: Path | None) -> None:
        """Check that the masks are of a benchmark.

        Args:
            entry: of params.yaml.
            benchmark: name.
            kind: of its ground truth.
            folder: of the index stage; None: the benchmark is not there yet.

        Raises:
            UserError: they are not.
        """

    @abstractmethod
    def write(self, entry: Entry, benchmark: Path, out: Path) -> Given:
        """Write the masks as parts of a folder of predictions (docs/formats.md).

        Args:
            entry: of params.yaml.
            benchmark: folder of the index stage.
            out: folder for ``part-*.parquet`` and, where the masks answer none of the benchmark's
                prompts, ``prompts-<system>.parquet``.

        Raises:
            UserError: they do not belong to the benchmark.
        """
