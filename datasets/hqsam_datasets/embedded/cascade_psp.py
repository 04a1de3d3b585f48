"""cascade_psp.zip: five flat folders of ``X.jpg`` beside ``X.png``, without a root folder, with their known bad files.

- ``fss_all``: three-channel and RGBA masks, apostrophes in names, six stray ``.jpeg`` files without
  annotation, a picture in place of a mask, an unlabelled mask, masks of odd size (for some the
  image has the same size);
- ``ecssd``: binary masks, a turned and a CMYK photograph;
- ``MSRA_10K``: binary masks, one of them written as 0/1, and the mislabelled 97915;
- ``DUTS-TR``, ``DUTS-TE``: soft masks, some grey photographs.
"""

from __future__ import annotations

import cv2
import numpy as np

from hqsam_datasets.embedded import names
from hqsam_datasets.embedded.evaluation import Alpha, union
from hqsam_datasets.embedded.names import DUTS_TRAIN, TRAINING_COUNTS
from hqsam_datasets.embedded.packing import Member, jpeg, png, rng_of, zip_bytes
from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES, render_background, render_scene
from hqsam_datasets.embedded.training import MaskStyle, mask_file, pair, scene_of

_FSS_RGBA_EVERY = 12
_DUTS_GREY = (2, 19, 50)
_ECSSD_TURNED = {12: 6}
_ECSSD_CMYK = 27
_MSRA_ZERO_ONE = 20
_FSS_IMAGE_IS_ODD_TOO = (("shower_curtain", 3), ("crt_screen", 6), ("rocking_chair", 9))


def _fss_odd() -> list[Member]:
    """Return pairs with a mask that does not have the nominal size.

    The image of some has the mask's size.
    """
    members = []
    for (name, number), (width, height) in names.FSS_ODD_MASKS.items():
        stem = f"{name}_{number}"
        if (name, number) in _FSS_IMAGE_IS_ODD_TOO:
            scene = render_scene(
                rng=rng_of("fss", stem), families=TRAIN_FAMILIES, height=height, width=width
            )
            alpha = union(scene)
        else:
            scene = scene_of("fss1000", stem)
            alpha = _stretched(union(scene), height, width)
        members.append((f"fss_all/{stem}.jpg", jpeg(scene.image)))
        members.append((f"fss_all/{stem}.png", mask_file(alpha, "rgb")))
    return members


def _stretched(alpha: Alpha, height: int, width: int) -> Alpha:
    return np.asarray(
        cv2.resize(alpha, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32
    )


def _fss_bad() -> list[Member]:
    """Return a picture in place of a mask, an unlabelled mask, and the stray files."""
    picture, empty = (
        "_".join(map(str, item)) for item in (names.FSS_PICTURE_AS_MASK, names.FSS_UNLABELLED)
    )
    shown, blank = scene_of("fss1000", picture).image, scene_of("fss1000", empty).image
    other = render_background(rng=rng_of("fss", picture), height=180, width=240)
    members = [
        (f"fss_all/{picture}.jpg", jpeg(shown)),
        (f"fss_all/{picture}.png", png(other)),
        (f"fss_all/{empty}.jpg", jpeg(blank)),
        (f"fss_all/{empty}.png", png(np.zeros_like(blank))),
    ]
    for name, number in names.FSS_STRAYS:
        scene = scene_of("fss1000", f"{name}_{number}")
        members.append((f"fss_all/{name}_{number}.jpeg", jpeg(scene.image)))
    return members


def _msra() -> list[Member]:
    members = []
    for i in range(TRAINING_COUNTS["msra10k"]):
        made = pair("msra10k", i)
        members.append((f"MSRA_10K/{made.stem}.jpg", made.image))
        style: MaskStyle = "zero_one" if i == _MSRA_ZERO_ONE else "binary"
        members.append((f"MSRA_10K/{made.stem}.png", mask_file(made.alpha, style)))
    # The mislabelled one: the mask of another picture.
    stem = names.MSRA_MISLABELLED
    scene, wrong = scene_of("msra10k", stem), union(scene_of("msra10k", f"{stem} mask"))
    members.append((f"MSRA_10K/{stem}.jpg", jpeg(scene.image)))
    members.append(
        (f"MSRA_10K/{stem}.png", mask_file(_stretched(wrong, *scene.image.shape[:2]), "binary"))
    )
    return members


def cascade_psp_zip() -> bytes:
    """Return the archive's one file."""
    members = [*_fss_odd(), *_fss_bad(), *_msra()]
    for i in range(TRAINING_COUNTS["fss1000"]):
        made = pair("fss1000", i)
        style: MaskStyle = "rgba" if i % _FSS_RGBA_EVERY == 5 else "rgb"
        members.append((f"fss_all/{made.stem}.jpg", made.image))
        members.append((f"fss_all/{made.stem}.png", mask_file(made.alpha, style)))
    for i in range(TRAINING_COUNTS["ecssd"]):
        mode = "CMYK" if i == _ECSSD_CMYK else None
        made = pair("ecssd", i, orientation=_ECSSD_TURNED.get(i, 1), mode=mode)
        members.append((f"ecssd/{made.stem}.jpg", made.image))
        members.append((f"ecssd/{made.stem}.png", mask_file(made.alpha, "binary")))
    for i in range(TRAINING_COUNTS["duts"]):
        made = pair("duts", i, mode="L" if i in _DUTS_GREY else None)
        folder = "DUTS-TR" if i < DUTS_TRAIN else "DUTS-TE"
        members.append((f"{folder}/{made.stem}.jpg", made.image))
        members.append((f"{folder}/{made.stem}.png", mask_file(made.alpha, "soft")))
    return zip_bytes(members)


FILES = {"cascade_psp.zip": cascade_psp_zip}
