"""CascadePSP (Cheng et al., CVPR 2020) through its authors' package ``segmentation-refinement`` (MIT, extra ``refine``).

The whole image and the mask go to the package's ``Refiner.refine``: a global step on the image
resized to ``L`` pixels, then, unless ``fast``, a local step on windows of ``L`` pixels at full
resolution; above 127 of 255 is object. How the paper's authors cropped and resized is not
published.

By default the package downloads its weights. Here the caller names a file: 67.7 M parameters, a
state dict of ``torch.nn.DataParallel``.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from hqsam.refiners._base import BoolMask, Image, Opened, RefinerOptions, device_of, weights_of
from hqsam_base.errors import UserError

PUBLISHED_MD5 = "7478d4a9c42ab52beb6d7e9683402fe0"
CURE = (
    "download https://github.com/hkchengrex/CascadePSP/releases/download/v1.0/model "
    f"(MD5 {PUBLISHED_MD5}) and name it with --weights"
)


def _package() -> Any:
    try:
        from hqsam.model._torchvision import ensure_torchvision

        ensure_torchvision()
        import segmentation_refinement
    except ImportError as error:
        raise UserError(
            f"the refiner cascadepsp needs the module {error.name!r}",
            cure="pip install 'hqsam-pipeline[refine]'",
        ) from error
    return segmentation_refinement


def _network(package: Any, weights: Path, device: str) -> Any:
    """Load the package's refiner with weights from a file.

    It looks for a file named ``model`` in a folder.
    """
    with tempfile.TemporaryDirectory(prefix="cascadepsp-") as folder:
        (Path(folder) / "model").symlink_to(weights.absolute())
        try:
            # torch reads the file with weights_only=True, its default.
            return package.Refiner(
                device=device, model_folder=folder, download_and_check_model=False
            )
        except Exception as error:
            # torch's own text advises to read the file without its protection.
            first = (
                "no PyTorch file"
                if isinstance(error, pickle.UnpicklingError)
                else str(error).partition("\n")[0]
            )
            raise UserError(
                f"these are not weights of CascadePSP ({first})", file=weights, cure=CURE
            ) from error


@dataclass(frozen=True)
class CascadePSP:
    """The refiner ``cascadepsp``."""

    name: str = "cascadepsp"
    version: int = 1

    def open(self, options: RefinerOptions) -> Opened:
        """See ``Refiner.open``."""
        package = _package()
        weights = weights_of(options, CURE)
        network = _network(package, weights, device_of(options))

        def run(image: Image, mask: BoolMask) -> BoolMask:
            grey = np.where(mask, np.uint8(255), np.uint8(0))
            found = network.refine(image, grey, fast=options.fast, L=options.long_side)
            return np.asarray(found > 127, bool)

        content = weights.read_bytes()
        protocol = {
            "name": self.name,
            "version": self.version,
            "package": f"segmentation-refinement {metadata.version('segmentation-refinement')}",
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "weights_published": hashlib.md5(content, usedforsecurity=False).hexdigest()
            == PUBLISHED_MD5,
            "long_side": options.long_side,
            "fast": options.fast,
            "crop": "whole image",
        }
        return Opened(run, protocol)


REFINER = CascadePSP()
