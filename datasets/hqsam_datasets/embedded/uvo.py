"""UVO FrameSet val: PNG frames ``<youtube id>_<start>_<end>/<frame>.png``, three a video, one category, RLE masks."""

from __future__ import annotations

import functools

import numpy as np

from hqsam_datasets.embedded import coco_records, names
from hqsam_datasets.embedded.coco_records import Json
from hqsam_datasets.embedded.evaluation import (
    COCO_CATEGORY_OF_FAMILY,
    OPEN_WORLD_FAMILIES,
    Clip,
    visible,
)
from hqsam_datasets.embedded.packing import json_bytes, png, rng_of, zip_bytes
from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES

_VIDEOS = 6
_FRAMES = (0, 30, 60)  # one a second
_ROOT = "uvo_videos_sparse_frames"


def _clips() -> list[Clip]:
    rng = rng_of("sizes", "uvo")
    # Frames are a second apart: every seventh frame of the rendered clip.
    return [
        Clip(
            "uvo", name, 160, 208, int(rng.integers(1, 4)), 15, OPEN_WORLD_FAMILIES, TRAIN_FAMILIES
        )
        for name in names.youtube_clips(_VIDEOS)
    ]


@functools.lru_cache(maxsize=1)
def truth() -> Json:
    """Return ``UVO_frame_val.json``: COCO instances, class-agnostic, one category."""
    images: list[Json] = []
    records: list[Json] = []
    for clip in _clips():
        for frame, scene in zip(_FRAMES, clip.scenes()[::7], strict=True):
            number = len(images)
            images.append(
                {
                    "id": number,
                    "file_name": f"{clip.name}/{frame}.png",
                    "height": clip.height,
                    "width": clip.width,
                }
            )
            for obj in visible(scene):
                drawn = coco_records.with_rle([obj.alpha], compressed=True)
                records.append(
                    {
                        **drawn,
                        "id": len(records) + 1,
                        "image_id": number,
                        "category_id": 1,
                        "iscrowd": 0,
                    }
                )
    category = {"id": 1, "name": "object", "supercategory": "object"}
    return {
        "info": coco_records.info("UVO_frame_val"),
        "images": images,
        "annotations": records,
        "categories": [category],
    }


def frames_zip() -> bytes:
    """Return ``uvo_videos_sparse_frames.zip``."""
    members = []
    for clip in _clips():
        for frame, scene in zip(_FRAMES, clip.scenes()[::7], strict=True):
            members.append(
                (f"{_ROOT}/{clip.name}/{frame}.png", png(np.ascontiguousarray(scene.image)))
            )
    return zip_bytes(members, folders=True)


def detections_json() -> bytes:
    """Return ``uvo_instances_results.json``: boxes of a COCO-trained detector, with its COCO classes."""
    content = truth()
    ids = sorted({1, *COCO_CATEGORY_OF_FAMILY.values()})
    boxes = coco_records.detector_results(
        "uvo detector", content["images"], content["annotations"], [1]
    )
    rng = rng_of("uvo", "classes")
    return json_bytes([{**box, "category_id": int(rng.choice(ids))} for box in boxes])


FILES = {
    "uvo_videos_sparse_frames.zip": frames_zip,
    "UVO_frame_val.json": lambda: json_bytes(truth()),
    "uvo_instances_results.json": detections_json,
}
