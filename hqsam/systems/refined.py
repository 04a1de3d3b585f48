"""Another system's masks after a refiner: the rows "post-refinement" of the paper's Table 4.

systems:
sam_hq: {kind: sam_hq}
sam_grabcut: {kind: refined, of: sam, refiner: grabcut}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from hqsam import refiners
from hqsam.systems.base import (
    U8,
    BoolMask,
    Context,
    Derived,
    Entry,
    System,
    SystemKind,
    SystemOptions,
)
from hqsam_base.errors import UserError


class RefinedOptions(SystemOptions, refiners.RefinerOptions):
    """``systems.<name>`` of this kind; see also `RefinerOptions`.

    Attributes:
        of: The system whose masks are refined; what the result is compared with unless ``versus``
            says otherwise.
        refiner: A file of ``hqsam/refiners``.
    """

    of: str
    refiner: str


class Refined(Derived):
    """An opened refiner.

    Args:
        of: Name of the system.
        opened: The refiner.
    """

    def __init__(self, of: str, opened: refiners.Opened) -> None:
        self.of = of
        self._opened = opened
        # The rule that made the masks belongs to the numbers: these are never taken for the other
        # system's own.
        self.protocol: dict[str, Any] = {"refined": of, "refiner": opened.protocol}

    def refine(self, image: U8, mask: BoolMask) -> BoolMask:
        """See `Derived.refine`."""
        return self._opened.refine(image=image, mask=mask)


class RefinedKind(SystemKind):
    """See the module."""

    def systems(self, entry: Entry) -> tuple[System, ...]:
        """One, compared with what it was made from."""
        options = cast(RefinedOptions, entry.options)
        label = options.label or f"{options.of} + {options.refiner}"
        return (
            System(name=entry.name, label=label, owner=label, versus=options.versus or options.of),
        )

    def files(self, entry: Entry) -> list[Path]:
        """See `SystemKind.files`: the weights, where the refiner has any."""
        options = cast(RefinedOptions, entry.options)
        refiners.load(options.refiner)  # says which there are
        if options.weights is None:
            return []
        if not options.weights.is_file():
            raise UserError(
                "there is no such file",
                file=options.weights,
                key=f"systems.{entry.name}.weights",
                cure="correct the path",
            )
        return [options.weights]

    def open(self, entry: Entry, context: Context) -> Derived:
        """Load the refiner."""
        options = cast(RefinedOptions, entry.options)
        return Refined(options.of, refiners.load(options.refiner).open(options))


SYSTEM = RefinedKind("refined", RefinedOptions, int8=True)
