"""DAVIS 2017 trainval at 480p (palette PNGs, void pixels, lists of sequences) and XMem's results as indexed PNGs."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hqsam_datasets.embedded.detectors import tracked
from hqsam_datasets.embedded.evaluation import Clip
from hqsam_datasets.embedded.packing import jpeg, palette_png, rng_of, zip_bytes

_VAL = (
    Clip("davis", "bike-packing", 120, 160, 2),
    Clip("davis", "dogs-jump", 120, 160, 3),
    Clip("davis", "kite-surf", 128, 168, 1),
)
_TRAIN = (Clip("davis", "bmx-bumps", 120, 160, 1, n_frames=2),)
_VOID = 255
_VOID_FRAME = 3

Labels = npt.NDArray[np.uint8]


def _labels(clip: Clip) -> list[Labels]:
    """Return label maps, uint8 [H, W] per frame: object id where its coverage is above one half."""
    maps = []
    for scene in clip.scenes():
        labels = np.zeros((clip.height, clip.width), dtype=np.uint8)
        for number, obj in enumerate(scene.objects, start=1):
            labels[obj.alpha > 0.5] = number
        maps.append(labels)
    return maps


def trainval_zip() -> bytes:
    """Return ``DAVIS-2017-trainval-480p.zip``."""
    members = [
        (f"DAVIS/ImageSets/2017/{split}.txt", "".join(f"{clip.name}\n" for clip in clips).encode())
        for split, clips in (("train", _TRAIN), ("val", _VAL))
    ]
    for clip in (*_VAL, *_TRAIN):
        for k, (scene, labels) in enumerate(zip(clip.scenes(), _labels(clip), strict=True)):
            marked = labels
            if (clip, k) == (_VAL[1], _VOID_FRAME):
                # The outline of the objects is void, as in a few published frames.
                inside = (labels > 0).astype(np.uint8)
                band = cv2.dilate(inside, np.ones((3, 3), np.uint8)) - inside
                marked = np.where(band > 0, np.uint8(_VOID), labels).astype(np.uint8)
            members.append((f"DAVIS/JPEGImages/480p/{clip.name}/{k:05d}.jpg", jpeg(scene.image)))
            members.append((f"DAVIS/Annotations/480p/{clip.name}/{k:05d}.png", palette_png(marked)))
    return zip_bytes(members, folders=True)


def _tracked(clip: Clip) -> list[Labels]:
    """Return XMem's label maps: given the first frame; coarse, at times an object is lost."""
    exact = _labels(clip)
    out = [np.zeros_like(labels) for labels in exact]
    for number in range(1, clip.n_objects + 1):
        rng = rng_of("xmem", clip.name, number)
        masks = tracked(
            [m == number for m in exact], stride=4, lost=0.04, rng=rng, first_is_given=True
        )
        for labels, mask in zip(out, masks, strict=True):
            labels[mask] = number
    return out


def results_zip() -> bytes:
    """Return ``xmem_results.zip``: ``<sequence>/%05d.png``."""
    return zip_bytes(
        [
            (f"{clip.name}/{k:05d}.png", palette_png(labels))
            for clip in _VAL
            for k, labels in enumerate(_tracked(clip))
        ]
    )


FILES = {"DAVIS-2017-trainval-480p.zip": trainval_zip, "xmem_results.zip": results_zip}
