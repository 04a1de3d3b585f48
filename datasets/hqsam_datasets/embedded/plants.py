"""Training images of the embedded sample that are disguised copies of evaluation images.

They give the overlap gate something to find, in each disguise that it must see through. The table
is fixed and small: `planted_pairs` says what must be found; nothing else in the sample is a copy.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hqsam_datasets.embedded import evaluation
from hqsam_datasets.embedded.evaluation import Alpha, Photo
from hqsam_datasets.embedded.names import stems_of
from hqsam_datasets.embedded.packing import jpeg, rng_of
from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES, compose, render_background, render_scene
from hqsam_datasets.sample import make_key

UInt8Image = npt.NDArray[np.uint8]
Kind = Literal[
    "exact",
    "jpeg",
    "resize",
    "mirror",
    "rotate90",
    "brightness",
    "grey",
    "crop70",
    "composite",
    "foreground",
]


@dataclass(frozen=True)
class Plant:
    """One planted copy.

    Attributes:
        source: training source.
        index: place in the source's list of good names.
        kind: the disguise.
        dataset: set of the evaluation photograph.
        photo: place in that set's list.
    """

    source: str
    index: int
    kind: Kind
    dataset: str
    photo: int


class PlantedPair(NamedTuple):
    """What the overlap gate must find.

    Attributes:
        origin: published file name of the training image (no folder).
        source: training source.
        benchmark: evaluation set.
        key: the photograph's key in that benchmark.
        kind: the disguise.
    """

    origin: str
    source: str
    benchmark: str
    key: str
    kind: Kind


PLANTS: tuple[Plant, ...] = (
    Plant("dis5k", 4, "exact", "dis_vd", 1),
    Plant("dis5k", 17, "jpeg", "hrsod", 0),
    Plant("dis5k", 33, "crop70", "big", 0),
    Plant("dis5k", 48, "resize", "big", 2),
    Plant("ecssd", 6, "mirror", "coift", 2),
    Plant("ecssd", 21, "jpeg", "big", 5),
    Plant("msra10k", 9, "brightness", "coift", 7),
    Plant("msra10k", 30, "grey", "dis_vd", 6),
    Plant("msra10k", 52, "exact", "coco", 1),
    Plant("duts", 5, "resize", "hrsod", 2),
    Plant("duts", 28, "mirror", "dis_vd", 10),
    Plant("duts", 57, "crop70", "lvis", 1),
    Plant("fss1000", 11, "rotate90", "coift", 10),
    Plant("fss1000", 37, "brightness", "hrsod", 8),
    Plant("thinobject5k", 3, "composite", "hrsod", 1),
    Plant("thinobject5k", 14, "composite", "hrsod", 4),
    Plant("thinobject5k", 25, "composite", "coco", 0),
    Plant("thinobject5k", 36, "composite", "coco", 7),
    Plant("thinobject5k", 47, "composite", "lvis", 3),
    Plant("thinobject5k", 58, "composite", "hrsod", 9),
    Plant("thinobject5k", 62, "foreground", "thinobject5k_test", 8),
    Plant("thinobject5k", 66, "grey", "thinobject5k_test", 4),
)


def photos_of(dataset: str) -> list[Photo]:
    """Return the evaluation photographs of one set, in its order."""
    if dataset == "big":
        return [photo for photo, _ in evaluation.big("test")]
    makers: dict[str, Callable[[], list[Photo]]] = {
        "dis_vd": evaluation.dis_vd,
        "coift": evaluation.coift,
        "hrsod": evaluation.hrsod,
        "thinobject5k_test": evaluation.thinobject5k_test,
        "coco": evaluation.coco_val,
        "lvis": evaluation.lvis_train,
    }
    return makers[dataset]()


def plant_at(source: str, index: int) -> Plant | None:
    """Return the plant that takes this place of a source, if any."""
    return next((p for p in PLANTS if (p.source, p.index) == (source, index)), None)


def planted(plant: Plant) -> tuple[UInt8Image | bytes, Alpha]:
    """Return the planted training image and its mask.

    Returns:
        The image, uint8 [H, W, 3] (or the JPEG's very bytes for an exact copy), and the mask's
        coverage, float32 [H, W].
    """
    photo = photos_of(plant.dataset)[plant.photo]
    if plant.kind == "exact":
        return photo.file(), photo.union()
    if plant.kind == "foreground":
        # Its cut-out on another background: ThinObject-5K's splits share sources of cut-outs.
        rng = rng_of("plant", plant.source, plant.index)
        background = render_background(rng=rng, height=photo.height, width=photo.width)
        return compose(background=background, objects=photo.scene().objects), photo.union()
    published = np.asarray(Image.open(io.BytesIO(photo.file())).convert("RGB"))
    if plant.kind == "composite":
        # A training object on the photograph: ThinObject-5K was made from HRSOD and COCO so.
        rng = rng_of("plant", plant.source, plant.index)
        height, width = published.shape[:2]
        scene = render_scene(
            rng=rng,
            families=TRAIN_FAMILIES,
            height=height,
            width=width,
            fill=(0.45, 0.65),
            clutter=0,
        )
        return compose(background=published, objects=scene.objects), scene.objects[0].alpha
    return _DISGUISES[plant.kind](published, photo.union())


Disguise = Callable[[UInt8Image, Alpha], tuple[UInt8Image, Alpha]]


def _recompressed(image: UInt8Image, alpha: Alpha) -> tuple[UInt8Image, Alpha]:
    return np.asarray(Image.open(io.BytesIO(jpeg(image, quality=28))).convert("RGB")), alpha


def _resized(image: UInt8Image, alpha: Alpha) -> tuple[UInt8Image, Alpha]:
    factor = 0.8 if max(image.shape) < 256 else 200 / max(image.shape)
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    resized = (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(alpha, size, interpolation=cv2.INTER_AREA),
    )
    return np.asarray(resized[0], dtype=np.uint8), np.asarray(resized[1], dtype=np.float32)


def _mirrored(image: UInt8Image, alpha: Alpha) -> tuple[UInt8Image, Alpha]:
    return image[:, ::-1], alpha[:, ::-1]


def _turned(image: UInt8Image, alpha: Alpha) -> tuple[UInt8Image, Alpha]:
    return np.rot90(image), np.rot90(alpha)


def _brighter(image: UInt8Image, alpha: Alpha) -> tuple[UInt8Image, Alpha]:
    return np.clip(image.astype(np.float32) * 1.15 + 18, 0, 255).astype(np.uint8), alpha


def _grey(image: UInt8Image, alpha: Alpha) -> tuple[UInt8Image, Alpha]:
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB")), alpha


def _cropped(image: UInt8Image, alpha: Alpha) -> tuple[UInt8Image, Alpha]:
    """Crop to 70 % of each side, from a little off the middle."""
    height, width = image.shape[:2]
    y, x = round(0.12 * height), round(0.18 * width)
    window = slice(y, y + round(0.7 * height)), slice(x, x + round(0.7 * width))
    small = image[window], alpha[window]
    return _resized(*small) if max(height, width) >= 256 else small


_DISGUISES: dict[Kind, Disguise] = {
    "jpeg": _recompressed,
    "resize": _resized,
    "mirror": _mirrored,
    "rotate90": _turned,
    "brightness": _brighter,
    "grey": _grey,
    "crop70": _cropped,
}


def planted_pairs() -> list[PlantedPair]:
    """Return every (training image, evaluation image) pair that shares pictures, one per evaluation key.

    A photograph can stand in several places (COCO's val images in LVIS too, BIG's once per object):
    each is a pair.
    """
    pairs = []
    for plant in PLANTS:
        origin = f"{stems_of(plant.source)[plant.index]}.jpg"
        photo = photos_of(plant.dataset)[plant.photo]
        # (benchmark, key) of every evaluation image that is this photograph.
        places = [(photo.dataset, make_key(photo.dataset, photo.name))]
        if photo.dataset == "big":
            objects = next(numbers for other, numbers in evaluation.big("test") if other == photo)
            places = [("big", make_key("big", f"{photo.name}_{number:02d}")) for number in objects]
        elif photo.dataset == "coco" and photo in evaluation.lvis_val():
            places.append(("lvis", make_key("lvis", photo.name)))
        pairs += [PlantedPair(origin, plant.source, *place, plant.kind) for place in places]
    return sorted(pairs)
