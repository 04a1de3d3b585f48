"""What a refiner is, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from hqsam_base.errors import UserError

Image = npt.NDArray[np.uint8]
BoolMask = npt.NDArray[np.bool_]


class RefinerOptions(BaseModel):
    """Options of ``hqsam refine``; each refiner uses what it needs.

    Attributes:
        weights: File of a network's weights.
        repository: Checkout of the authors' code, for a refiner that no package offers.
        device: ``auto`` takes a GPU if there is one.
        long_side: Pixels of the longer side in the global step of CascadePSP (its ``L``).
        fast: The global step alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Path | None = None
    repository: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    long_side: int = Field(default=900, ge=96)
    fast: bool = False


@dataclass(frozen=True)
class Opened:
    """A refiner that is ready for use.

    Attributes:
        run: (image uint8 ``[H, W, 3]`` RGB, mask bool ``[H, W]`` with at least one pixel) -> bool
            ``[H, W]``.
        protocol: All that can move its numbers: version, digest of the weights, settings.
    """

    run: Callable[[Image, BoolMask], BoolMask]
    protocol: dict[str, Any]

    def refine(self, *, image: Image, mask: npt.NDArray[Any]) -> BoolMask:
        """Refine one mask. An empty mask shows no object and stays as it is.

        Args:
            image: uint8 ``[H, W, 3]`` RGB.
            mask: bool ``[H, W]``, or a probability 0..1 (float), of which the pixels above 0.5
                count.

        Returns:
            bool ``[H, W]``.

        Raises:
            ValueError: Sizes or types are others.
        """
        if (
            image.ndim != 3
            or image.dtype != np.uint8
            or image.shape[2] != 3
            or image.shape[:2] != mask.shape
        ):
            raise ValueError(
                f"image {image.dtype} {image.shape} and mask {mask.shape}: not uint8 [H, W, 3] "
                f"and [H, W]"
            )
        if mask.dtype != np.bool_ and mask.dtype.kind != "f":
            raise ValueError(f"a mask of {mask.dtype}: neither bool nor a probability")
        # Row by row in memory: a mask decoded from COCO's code is not.
        binary = np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask > 0.5)
        return self.run(np.ascontiguousarray(image), binary) if binary.any() else binary.copy()


@runtime_checkable
class Refiner(Protocol):
    """A file of this folder.

    Attributes:
        name: The file's stem.
        version: Goes up with every change that can move a number.
    """

    name: str
    version: int

    def open(self, options: RefinerOptions) -> Opened:
        """Load what is needed.

        Raises:
            UserError: A package, the weights or the authors' code is missing, or they do not fit
                together.
        """
        ...


def device_of(options: RefinerOptions) -> str:
    """Return ``cpu`` or ``cuda``.

    Raises:
        UserError: A GPU is asked for and there is none.
    """
    import torch

    there = torch.cuda.is_available()
    if options.device == "cuda" and not there:
        raise UserError("torch finds no CUDA device", key="device", cure="leave --device at auto")
    return "cuda" if there and options.device != "cpu" else "cpu"


def weights_of(options: RefinerOptions, cure: str) -> Path:
    """Return the file of the weights.

    Raises:
        UserError: None is given, or it does not exist; ``cure`` says where to get it.
    """
    if options.weights is None:
        raise UserError("the refiner's weights are not given", key="weights", cure=cure)
    if not options.weights.is_file():
        raise UserError("the refiner's weights do not exist", file=options.weights, cure=cure)
    return options.weights
