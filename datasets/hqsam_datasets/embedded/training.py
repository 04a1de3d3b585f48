"""The training images of the embedded sample: names, scenes, masks, by source.

An image depends on its source and place alone. Objects come from `TRAIN_FAMILIES`, except in the
planted copies (`plants`). The mask quirks of the published sets (soft edges, 0/1 values, three
channels, alpha) are put on by the archives' writers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hqsam_datasets.embedded.evaluation import Alpha, pasted, size_of, union
from hqsam_datasets.embedded.names import stems_of
from hqsam_datasets.embedded.packing import jpeg, png, rng_of
from hqsam_datasets.embedded.plants import plant_at, planted
from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES, Scene, render_scene

UInt8Image = npt.NDArray[np.uint8]
MaskStyle = Literal["soft", "binary", "zero_one", "rgb", "rgba"]

_SIDES = {
    "dis5k": (144, 200),
    "thinobject5k": (136, 192),
    "fss1000": (160, 160),
    "ecssd": (128, 176),
    "msra10k": (128, 176),
    "duts": (128, 184),
}


def scene_of(source: str, stem: str) -> Scene:
    """Return the scene of a training image that is no plant."""
    low, high = _SIDES[source]
    rng = rng_of("training", source, stem)
    height, width = size_of(rng, low, high)
    if source == "thinobject5k":
        return pasted(rng, families=TRAIN_FAMILIES, height=height, width=width)
    return render_scene(rng=rng, families=TRAIN_FAMILIES, height=height, width=width)


@dataclass(frozen=True)
class Pair:
    """Image file and exact coverage of a training image."""

    stem: str
    image: bytes
    alpha: Alpha


def pair(source: str, index: int, *, orientation: int = 1, mode: str | None = None) -> Pair:
    """Make one good training image.

    Args:
        source: training source.
        index: place in `stems_of(source)`.
        orientation: EXIF orientation to store it with (no effect on exact copies).
        mode: Pillow mode of the file ("L", "CMYK"); None is RGB.
    """
    stem = stems_of(source)[index]
    plant = plant_at(source, index)
    if plant is None:
        scene = scene_of(source, stem)
        image: UInt8Image | bytes = scene.image
        alpha = union(scene)
    else:
        image, alpha = planted(plant)
    data = image if isinstance(image, bytes) else jpeg(image, orientation=orientation, mode=mode)
    return Pair(stem, data, alpha)


def mask_file(alpha: Alpha, style: MaskStyle) -> bytes:
    """Encode a mask.

    Args:
        alpha: coverage, float32 [H, W] in 0..1.
        style: ``soft`` keeps the anti-aliased edge, ``binary`` is 0/255, ``zero_one`` 0/1, ``rgb``
            0/255 in three equal channels, ``rgba`` the same with an opaque alpha.

    Returns:
        The PNG's bytes.
    """
    if style == "soft":
        return png(np.rint(alpha * 255).astype(np.uint8))
    inside = np.rint(alpha * 255) > 128
    if style == "zero_one":
        return png(inside.astype(np.uint8))
    grey = inside.astype(np.uint8) * np.uint8(255)
    if style == "binary":
        return png(grey)
    opaque = [np.full_like(grey, 255)] if style == "rgba" else []
    return png(np.stack([grey, grey, grey, *opaque], axis=-1))
