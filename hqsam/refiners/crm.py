"""CRM (Shen et al., "High Quality Segmentation for Ultra High-resolution Images", CVPR 2022) from a checkout of its code.

There is no package. ``repository`` names the folder ``High-Quality-Segmention`` of a checkout of
``dvlab-research/Entity``, in which ``models/network/crm_transferCoord_transferFeat.py`` defines
``CRMNet``; ``weights`` its published checkpoint (``model_45705``, a state dict of
``torch.nn.DataParallel``). What is done around the network is what the authors' evaluation program
does:

* the image normalised as for ImageNet, the mask as -1 and 1, both padded by 32 mirrored pixels;
* four rounds: image and mask resized to 1/8, 1/4, 1/2 and 1 of their size (bilinear, corners
  aligned), the network asked for every pixel of the full size, in pieces; its probability p is, as
  2p - 1, the mask of the next round;
* above 0.5 in the last round is object.

The network is called ``net(image, mask, coord=, cell=, transferCoord=, transferFeat=)``: coord
``[1, n, 2]``, centres of the pixels asked for (y, x) in -1..1; cell ``[1, n, 2]``, their size (2 /
H, 2 / W). The first call of a round returns ({"pred_224": ``[1, n, 1]``}, coordinates, features),
and the later ones, which are given those, the dict alone.

The network's code and its weights were not at hand when this was written: it has been run with a
stand-in of that interface only, never with CRM itself. The authors' network calls ``.cuda()`` and
so needs a GPU.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hqsam.refiners._base import BoolMask, Image, Opened, RefinerOptions, device_of, weights_of
from hqsam_base.errors import UserError

MODULE = "models.network.crm_transferCoord_transferFeat"
FILE = Path("models") / "network" / "crm_transferCoord_transferFeat.py"
PAD = 32
SCALES = (0.125, 0.25, 0.5, 1.0)
CHUNK = 50176 * 16
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CURE_CODE = (
    "clone https://github.com/dvlab-research/Entity and name its folder High-Quality-Segmention "
    "with --repository"
)
CURE_WEIGHTS = (
    "download the checkpoint that the page of High-Quality-Segmention links and name it with "
    "--weights"
)


@contextmanager
def _importable(repository: Path) -> Iterator[None]:
    """Put the checkout first on the import path.

    Afterwards ``models`` is free again for another one.
    """
    before = [name for name in sys.modules if name.partition(".")[0] == "models"]
    sys.path.insert(0, str(repository.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(repository.absolute()))
        for name in [n for n in sys.modules if n.partition(".")[0] == "models" and n not in before]:
            del sys.modules[name]


def _network(repository: Path, weights: Path, device: str) -> torch.nn.Module:
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    with _importable(repository):
        try:
            kind = importlib.import_module(MODULE).CRMNet
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"CRM cannot be imported ({error})", file=repository / FILE, cure=CURE_CODE
            ) from error
        # Weights of ImageNet would be downloaded only to be overwritten.
        offline = (
            {"pretrained": False} if "pretrained" in inspect.signature(kind).parameters else {}
        )
        net: torch.nn.Module = kind(backend="resnet50", **offline)
    try:
        found = torch.load(weights, map_location=device, weights_only=True)
        net.load_state_dict({name.removeprefix("module."): value for name, value in found.items()})
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise UserError(
            f"these are not weights of CRM ({first})", file=weights, cure=CURE_WEIGHTS
        ) from error
    return net.eval().to(device)


def _padded(values_CHW: Tensor) -> Tensor:
    # Mirroring needs a side longer than the margin.
    mode = "reflect" if min(values_CHW.shape[-2:]) > PAD else "replicate"
    return functional.pad(values_CHW[None], (PAD, PAD, PAD, PAD), mode=mode)


def _round(
    net: Any, image_1CHW: Tensor, mask_11HW: Tensor, scale: float, coord_1N2: Tensor
) -> Tensor:
    """Run one round: the probability of every pixel of the padded image, ``[1, 1, H, W]``."""
    height, width = image_1CHW.shape[-2:]
    size = (round(height * scale), round(width * scale))
    image, mask = (
        functional.interpolate(v, size=size, mode="bilinear", align_corners=True)
        for v in (image_1CHW, mask_11HW)
    )
    kept: tuple[Any, Any] = (None, None)
    parts = []
    for begin in range(0, height * width, CHUNK):
        coord = coord_1N2[:, begin : begin + CHUNK]
        cell = torch.tensor([2 / height, 2 / width], device=coord.device).expand_as(coord)
        found = net(
            image, mask, coord=coord, cell=cell, transferCoord=kept[0], transferFeat=kept[1]
        )
        if isinstance(found, tuple):
            found, *rest = found
            kept = (rest[0], rest[1])
        parts.append(found["pred_224"])
    return torch.cat(parts, dim=1).reshape(1, 1, height, width)


@torch.inference_mode()
def refine(net: torch.nn.Module, image: Image, mask: BoolMask, device: str) -> BoolMask:
    """Run all rounds; see ``Opened.run``."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    pixels = (torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) / 255 - mean) / std
    image_1CHW = _padded(pixels).to(device)
    now = _padded(torch.from_numpy(mask.astype(np.float32))[None] * 2 - 1).to(device)
    # Centres of the pixels, row by row, (y, x) in -1..1: float32 [1, H * W, 2].
    y, x = ((2 * torch.arange(n, dtype=torch.float32) + 1) / n - 1 for n in image_1CHW.shape[-2:])
    coord = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(1, -1, 2).to(device)
    probability = now
    for scale in SCALES:
        probability = _round(net, image_1CHW, now, scale, coord)
        now = 2 * probability.float() - 1
    return np.asarray((probability[0, 0, PAD:-PAD, PAD:-PAD] > 0.5).cpu().numpy(), bool)


@dataclass(frozen=True)
class CRM:
    """The refiner ``crm``."""

    name: str = "crm"
    version: int = 1

    def open(self, options: RefinerOptions) -> Opened:
        """See ``Refiner.open``."""
        repository = options.repository
        if repository is None:
            raise UserError(
                "the authors' code of CRM is not given", key="repository", cure=CURE_CODE
            )
        if not (repository / FILE).is_file():
            raise UserError(
                "this is not a checkout of CRM's code", file=repository / FILE, cure=CURE_CODE
            )
        weights, device = weights_of(options, CURE_WEIGHTS), device_of(options)
        net = _network(repository, weights, device)
        digests = {"code_sha256": repository / FILE, "weights_sha256": weights}
        protocol = {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in digests.items()
        }
        settings = {"scales": list(SCALES), "padding": PAD, "crop": "whole image"}
        return Opened(
            lambda image, mask: refine(net, image, mask, device),
            {"name": self.name, "version": self.version, **protocol, **settings},
        )


REFINER = CRM()
