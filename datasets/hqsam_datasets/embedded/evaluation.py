"""The evaluation photographs of the embedded sample: names, sizes, scenes.

A photograph's scene depends on its set and name alone, so every file of an archive (images,
annotations, detector results) and every training image that copies it (`plants`) agree without
shared state.

Objects of the HQ sets, BIG and DAVIS come from `EVAL_FAMILIES`: one thin, intricate thing that
fills the picture. COCO, LVIS, UVO and HQ-YTVIS imitate the real ones: one to three things a
picture, two thirds of the kinds solid (`EVERYDAY_FAMILIES`), a third thin, before scenery that
belongs to no category.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hqsam_datasets.embedded import names
from hqsam_datasets.embedded.packing import jpeg, rng_of
from hqsam_datasets.embedded.scenes import (
    EVAL_FAMILIES,
    TRAIN_FAMILIES,
    Scene,
    SceneObject,
    compose,
    render_background,
    render_clip,
    render_scene,
)

Alpha = npt.NDArray[np.float32]

COCO_CATEGORY_OF_FAMILY = {
    "airplane": 5,
    "apple": 53,
    "bicycle": 2,
    "bird": 16,
    "bottle": 44,
    "butterfly": 38,  # kite: the nearest class that COCO has
    "car": 3,
    "cat": 17,
    "chair": 62,
    "cup": 47,
    "net_bag": 31,  # handbag
    "sailing_boat": 9,
    "scissors": 87,
    "teddy_bear": 88,
    "truck": 8,
    "vase": 86,
}
"""Shape family -> COCO category id, for the families that the COCO photographs show."""

COCO_FAMILIES = tuple(COCO_CATEGORY_OF_FAMILY)
OPEN_WORLD_FAMILIES = (*COCO_FAMILIES, "antlers", "feather", "fish", "shirt", "teapot", "turtle")
"""Families of LVIS and UVO: COCO's and some that have no class there."""

CLIP_FRAMES = 8
MIN_VISIBLE_PX = 24
"""Objects with fewer visible pixels are not annotated."""


@dataclass(frozen=True)
class Photo:
    """One published evaluation photograph.

    Attributes:
        dataset: the set with the archive that holds the file.
        name: published stem, or number for COCO.
        height: rows.
        width: columns.
        n_objects: objects rendered (some may end up hidden).
        families: shape families of its objects.
        composite: whether objects are pasted on a foreign background, as in ThinObject-5K.
        orientation: EXIF orientation tag of the file.
        grey: whether the file is a grey JPEG.
        crowd_from: objects from this number on form one crowd region; None for none.
        scenery: shape families of what stands behind the objects; None for those of the objects.
    """

    dataset: str
    name: str
    height: int
    width: int
    n_objects: int = 1
    families: tuple[str, ...] = EVAL_FAMILIES
    composite: bool = False
    orientation: int = 1
    grey: bool = False
    crowd_from: int | None = None
    scenery: tuple[str, ...] | None = None

    def scene(self) -> Scene:
        """Return the rendered photograph."""
        return _scene(self)

    def file(self) -> bytes:
        """Return the published JPEG."""
        return jpeg(
            self.scene().image, orientation=self.orientation, mode="L" if self.grey else None
        )

    def union(self) -> Alpha:
        """Return the coverage of all objects together, float32 [H, W] in 0..1."""
        return union(self.scene())


def union(scene: Scene) -> Alpha:
    """Return the coverage of all of a scene's objects, float32 [H, W] in 0..1 (visible parts do not overlap)."""
    return np.clip(np.sum([o.alpha for o in scene.objects], axis=0, dtype=np.float32), 0, 1)


def visible(scene: Scene) -> list[SceneObject]:
    """Return the objects that an annotator would find."""
    return [o for o in scene.objects if int((o.alpha > 0.5).sum()) >= MIN_VISIBLE_PX]


@functools.lru_cache(maxsize=32)
def _scene(photo: Photo) -> Scene:
    rng = rng_of("evaluation", photo.dataset, photo.name)
    if photo.composite:
        return pasted(rng, families=photo.families, height=photo.height, width=photo.width)
    return render_scene(
        rng=rng,
        families=photo.families,
        height=photo.height,
        width=photo.width,
        n_objects=photo.n_objects,
        scenery=photo.scenery,
    )


def pasted(
    rng: np.random.Generator, *, families: tuple[str, ...], height: int, width: int
) -> Scene:
    """Return a cut-out on a foreign background, as ThinObject-5K was made."""
    cut_out = render_scene(rng=rng, families=families, height=height, width=width, clutter=0)
    background = render_background(rng=rng, height=height, width=width)
    return Scene(compose(background=background, objects=cut_out.objects), cut_out.objects)


def size_of(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    """Return a random photo format, (height, width), sides between low and high."""
    return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))


def _photos(dataset: str, stems: list[str], low: int, high: int, **options: bool) -> list[Photo]:
    rng = rng_of("sizes", dataset)
    return [
        Photo(dataset, stem, *size_of(rng, low, high), composite=options.get("composite", False))
        for stem in stems
    ]


def dis_vd() -> list[Photo]:
    """Return DIS-VD."""
    return _photos("dis_vd", names.dis("VD", 16), 136, 200)


def coift() -> list[Photo]:
    """Return COIFT."""
    return _photos("coift", names.coift(12), 128, 176)


def hrsod() -> list[Photo]:
    """Return HRSOD: at times two objects in one mask, and one photograph that is stored turned."""
    rng = rng_of("sizes", "hrsod")
    photos = []
    for i, stem in enumerate(names.hrsod(12)):
        height, width = size_of(rng, 144, 200)
        if i == 5:  # upright sides differ, so that a reader who ignores the tag is found out
            photos.append(Photo("hrsod", stem, 192, 144, orientation=6))
        else:
            photos.append(Photo("hrsod", stem, height, width, n_objects=2 if i % 4 == 3 else 1))
    return photos


def thinobject5k_test() -> list[Photo]:
    """Return ThinObject-5K test."""
    return _photos("thinobject5k_test", names.thin("test", 16), 128, 192, composite=True)


def big(split: str) -> list[tuple[Photo, list[int]]]:
    """Return BIG: photographs and the objects (numbers of the scene) that have a pair of their own."""
    rng = rng_of("sizes", "big")
    photos = []
    for i, stem in enumerate(names.big(8)):
        height, width = size_of(rng, 400, 512)
        n = 2 if i % 3 == 1 else 1
        photos.append((Photo("big", stem, height, width, n_objects=n), list(range(n))))
    return photos[:6] if split == "test" else photos[6:]


def coco_val() -> list[Photo]:
    """Return COCO val2017: one to three objects, one grey file, two photographs with a crowd."""
    rng = rng_of("sizes", "coco")
    photos = []
    for i, number in enumerate(names.coco_ids("val", 20)):
        height, width = size_of(rng, 160, 224)
        crowd = i in (4, 9)
        n = 7 if crowd else int(rng.integers(1, 4))
        photos.append(
            Photo(
                "coco",
                f"{number:012d}",
                height,
                width,
                n,
                COCO_FAMILIES,
                grey=i == 6,
                crowd_from=3 if crowd else None,
                scenery=TRAIN_FAMILIES,
            )
        )
    return photos


def lvis_train() -> list[Photo]:
    """Return the images of LVIS val that lie in COCO's train2017."""
    rng = rng_of("sizes", "lvis")
    taken = {photo.name for photo in coco_val()}
    numbers = [n for n in names.coco_ids("train", 20) if f"{n:012d}" not in taken][:13]
    return [
        Photo(
            "lvis",
            f"{n:012d}",
            *size_of(rng, 160, 224),
            int(rng.integers(1, 4)),
            OPEN_WORLD_FAMILIES,
            scenery=TRAIN_FAMILIES,
        )
        for n in numbers
    ]


@dataclass(frozen=True)
class Clip:
    """One video of an evaluation set.

    Attributes:
        dataset: the set.
        name: published folder.
        height: rows.
        width: columns.
        n_objects: tracked objects.
        n_frames: frames.
        families: shape families of the tracked objects.
        scenery: shape families of what stands behind them; None for those of the objects.
    """

    dataset: str
    name: str
    height: int
    width: int
    n_objects: int
    n_frames: int = CLIP_FRAMES
    families: tuple[str, ...] = EVAL_FAMILIES
    scenery: tuple[str, ...] | None = None

    def scenes(self) -> list[Scene]:
        """Return the rendered frames."""
        return _clip(self)


@functools.lru_cache(maxsize=4)
def _clip(clip: Clip) -> list[Scene]:
    return render_clip(
        rng=rng_of("evaluation", clip.dataset, clip.name),
        families=clip.families,
        scenery=clip.scenery,
        height=clip.height,
        width=clip.width,
        n_frames=clip.n_frames,
        n_objects=clip.n_objects,
    )


def lvis_val() -> list[Photo]:
    """Return the images of LVIS val that lie in COCO's val2017: the same files as COCO's."""
    return coco_val()[:5]
