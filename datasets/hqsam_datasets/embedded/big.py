"""BIG.zip (``test/`` and ``val/``, one pair per object, photographs shared) and BIG_coarse.zip (PSPNet masks)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hqsam_datasets.embedded import evaluation
from hqsam_datasets.embedded.detectors import coarse_mask
from hqsam_datasets.embedded.packing import Member, png, rng_of, zip_bytes

_STRIDE = 20
"""Pixels per cell of the simulated network's output: about what PSPNet sees of a 5-megapixel photograph."""


def _objects(split: str) -> Iterator[tuple[str, bytes, npt.NDArray[np.bool_]]]:
    """Yield (published name, photograph, exact mask) per object of a split."""
    for photo, numbers in evaluation.big(split):
        scene = photo.scene()
        for number in numbers:
            yield f"{photo.name}_{number:02d}", photo.file(), scene.objects[number].alpha > 0.5


def _grey(mask: npt.NDArray[np.bool_]) -> bytes:
    return png(mask.astype(np.uint8) * np.uint8(255))


def photographs_zip() -> bytes:
    """Return ``BIG.zip``."""
    members: list[Member] = []
    for split in ("test", "val"):
        for name, photo, mask in _objects(split):
            members += [
                (f"BIG/{split}/{name}_im.jpg", photo),
                (f"BIG/{split}/{name}_gt.png", _grey(mask)),
            ]
    return zip_bytes(members, folders=True)


def coarse_zip() -> bytes:
    """Return ``BIG_coarse.zip``: masks of PSPNet at image resolution, test objects only."""
    members: list[Member] = []
    for name, photo, mask in _objects("test"):
        rough = coarse_mask(mask, stride=_STRIDE, rng=rng_of("pspnet", name))
        members += [(f"pspnet/{name}_im.jpg", photo), (f"pspnet/{name}_seg.png", _grey(rough))]
    return zip_bytes(members)


FILES = {"BIG.zip": photographs_zip, "BIG_coarse.zip": coarse_zip}
