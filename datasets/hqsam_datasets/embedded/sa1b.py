"""sa_000000.tar: ``sa_<id>.jpg`` beside ``sa_<id>.json`` with run-length masks, coarse as SA-1B's own are.

Not part of the sample's training set: for the row of the paper's Table 15 that trains on SA-1B
instead.
"""

from __future__ import annotations

import io
import json
import tarfile

import cv2
import numpy as np
import numpy.typing as npt

from hqsam_base import rle
from hqsam_datasets.embedded.evaluation import Alpha, size_of
from hqsam_datasets.embedded.packing import Member, jpeg, rng_of
from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES, render_scene

BoolMask = npt.NDArray[np.bool_]

N_IMAGES = 120
_SIDES = (144, 200)
_CLOSED = 0.05
"""Radius, as a share of an object's extent, by which gaps are bridged and holes filled."""


def _coarse(alpha: Alpha) -> BoolMask:
    """Return the mask that a promptable model would give: without gaps, holes and thin parts."""
    inside = (alpha > 0.5).astype(np.uint8)
    ys, xs = np.nonzero(inside)
    radius = max(1, round(_CLOSED * float(np.sqrt((np.ptp(ys) + 1) * (np.ptp(xs) + 1)))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    padded = cv2.copyMakeBorder(inside, 32, 32, 32, 32, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)
    return np.asarray(closed[32:-32, 32:-32] > 0)


def _members() -> list[Member]:
    members: list[Member] = []
    for number in range(N_IMAGES):
        rng = rng_of("training", "sa1b", str(number))
        height, width = size_of(rng, *_SIDES)
        scene = render_scene(rng=rng, families=TRAIN_FAMILIES, height=height, width=width)
        masks = [_coarse(o.alpha) for o in scene.objects if (o.alpha > 0.5).any()]
        image_id, stem = number + 1, f"sa_{number + 1}"
        size = {"height": height, "width": width}
        image = {"image_id": image_id, **size, "file_name": f"{stem}.jpg"}
        annotations = [
            {
                "id": 1000 * image_id + n,
                "segmentation": {"size": [height, width], "counts": rle.encode(mask)},
                "area": int(mask.sum()),
            }
            for n, mask in enumerate(masks)
        ]
        record = json.dumps({"image": image, "annotations": annotations}, sort_keys=True)
        members += [
            (f"{stem}.jpg", jpeg(scene.image)),
            (f"{stem}.json", record.encode()),
        ]
    return members


def sa1b_tar() -> bytes:
    """Return the archive's one file: members in order, without dates and owners."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in _members():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


FILES = {"sa_000000.tar": sa1b_tar}
