"""COCO-type annotation records of the embedded photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hqsam_base import rle
from hqsam_datasets.embedded.detectors import Detectable, Frame, detections
from hqsam_datasets.embedded.evaluation import Photo, visible
from hqsam_datasets.embedded.packing import rng_of
from hqsam_datasets.embedded.polygons import polygons_of
from hqsam_datasets.embedded.scenes import SceneObject

Json = dict[str, Any]
BoolMask = npt.NDArray[np.bool_]

_INFO = {
    "description": "Generated scenes in the layout of the published annotations",
    "version": "1.0",
}


def info(name: str) -> Json:
    """Return the ``info`` record of an annotation file."""
    return {"name": name, **_INFO}


def bbox_of(mask: BoolMask) -> list[float]:
    """Return the COCO box [x, y, width, height] of a mask's pixels (both end columns count).

    Zeros when empty.
    """
    box = rle.tight_box(mask)
    return [0.0] * 4 if box is None else [box[0], box[1], box[2] - box[0] + 1, box[3] - box[1] + 1]


def with_polygons(obj: SceneObject) -> Json | None:
    """Return ``segmentation`` (polygons), ``area`` and ``bbox`` of an object as COCO's tools have them; None if too small."""
    height, width = obj.alpha.shape
    polygons = polygons_of(obj.alpha)
    if not polygons:
        return None
    counts = rle.from_segmentation(polygons, height=height, width=width)
    xs, ys = (
        np.concatenate([p[0::2] for p in polygons]),
        np.concatenate([p[1::2] for p in polygons]),
    )
    box = [xs.min(), ys.min(), xs.max() - xs.min(), ys.max() - ys.min()]
    return {
        "segmentation": polygons,
        "area": float(rle.area(counts, height=height, width=width)),
        "bbox": [round(float(v), 2) for v in box],
    }


def with_rle(alphas: Sequence[npt.NDArray[np.float32]], *, compressed: bool) -> Json:
    """Return ``segmentation`` (RLE), ``area`` and ``bbox`` of the union of some coverages."""
    mask = np.asarray(np.any([alpha > 0.5 for alpha in alphas], axis=0))
    height, width = mask.shape
    encoded: Json = (
        {"size": [height, width], "counts": rle.encode(mask)}
        if compressed
        else rle.to_uncompressed(mask)
    )
    return {"segmentation": encoded, "area": float(mask.sum()), "bbox": bbox_of(mask)}


def singles(photo: Photo) -> list[SceneObject]:
    """Return the objects of a photograph that are annotated one by one."""
    objects = photo.scene().objects
    keep = objects if photo.crowd_from is None else objects[: photo.crowd_from]
    shown = {id(o) for o in visible(photo.scene())}
    return [o for o in keep if id(o) in shown]


def crowd(photo: Photo) -> list[SceneObject]:
    """Return the objects of a photograph that form its crowd region."""
    return [] if photo.crowd_from is None else list(photo.scene().objects[photo.crowd_from :])


def detector_results(
    tool: str, images: Sequence[Json], annotations: Sequence[Json], category_ids: Sequence[int]
) -> list[Json]:
    """Return what a detector would write for these images, in COCO's results format, image after image."""
    results = []
    for image in images:
        things = [
            Detectable(a["category_id"], tuple(a["bbox"]))
            for a in annotations
            if a["image_id"] == image["id"]
        ]
        frame = Frame(image["height"], image["width"])
        rng = rng_of(tool, image["id"])
        results += detections(
            things, image_id=image["id"], frame=frame, category_ids=category_ids, rng=rng
        )
    return results
