"""HQ-YTVIS test: frames of YouTube-VIS 2019, uncompressed RLE tubes with null frames, Mask2Former tracks.

The frame archive holds more than the annotations name: frames between the annotated ones (every
fifth is) and a video of another split.
"""

from __future__ import annotations

import functools

import numpy as np

from hqsam_base import rle
from hqsam_datasets.embedded import coco_records, names
from hqsam_datasets.embedded.coco_records import Json
from hqsam_datasets.embedded.detectors import BoolMask, tracked
from hqsam_datasets.embedded.evaluation import CLIP_FRAMES, MIN_VISIBLE_PX, Clip
from hqsam_datasets.embedded.packing import Member, jpeg, json_bytes, rng_of, zip_bytes
from hqsam_datasets.embedded.scenes import TRAIN_FAMILIES, Scene

_VIDEOS = 4
_STEP = 5  # numbers of annotated frames are multiples of this
_STRIDE = 3  # rendered frames between two annotated ones
_RENDERED = _STRIDE * (CLIP_FRAMES - 1) + 1
_CATEGORIES = {
    "airplane": 28,
    "antlers": 25,
    "bicycle": 21,
    "bird": 13,
    "butterfly": 4,
    "car": 6,
    "cat": 14,
    "fish": 16,
    "insect": 3,
    "sailing_boat": 34,
    "teddy_bear": 20,
    "truck": 29,
    "turtle": 19,
}
"""Shape family -> the class of YouTube-VIS that it stands for (antlers: deer, bicycle: motorbike, butterfly: parrot,
insect: lizard)."""
_NAMES = (
    "person,giant_panda,lizard,parrot,skateboard,sedan,ape,dog,snake,monkey,hand,rabbit,duck,cat,cow,fish,train,horse,"
    "turtle,bear,motorbike,giraffe,leopard,fox,deer,owl,surfboard,airplane,truck,zebra,tiger,elephant,snowboard,boat,"
    "shark,mouse,frog,eagle,earless_seal,tennis_racket"
)


def _clips() -> list[Clip]:
    """Return the test videos, then one of another split."""
    rng = rng_of("sizes", "hq_ytvis")
    sizes = ((120, 160), (128, 160), (160, 120), (120, 160), (120, 160))
    stems = names.ytvis_videos(_VIDEOS + 1)
    counts = [int(rng.integers(2, 4)) for _ in stems]
    return [
        Clip("hq_ytvis", stem, height, width, n, _RENDERED, tuple(_CATEGORIES), TRAIN_FAMILIES)
        for stem, (height, width), n in zip(stems, sizes, counts, strict=True)
    ]


def _annotated(clip: Clip) -> list[Scene]:
    """Return the annotated frames.

    Objects drift out of the image between the first and the last one.
    """
    return clip.scenes()[::_STRIDE]


def _tubes(clip: Clip) -> list[tuple[str, list[BoolMask]]]:
    """Return (family, mask per frame) of each object; masks too small to annotate are empty."""
    scenes = _annotated(clip)
    tubes = []
    for k, obj in enumerate(scenes[0].objects):
        masks = [scene.objects[k].alpha > 0.5 for scene in scenes]
        tubes.append(
            (obj.family, [m if int(m.sum()) >= MIN_VISIBLE_PX else np.zeros_like(m) for m in masks])
        )
    return [(family, masks) for family, masks in tubes if any(m.any() for m in masks)]


def _frame_names(clip: Clip) -> list[str]:
    return [f"{clip.name}/{k * _STEP:05d}.jpg" for k in range(CLIP_FRAMES)]


@functools.lru_cache(maxsize=1)
def truth() -> Json:
    """Return ``ytvis_hq-test.json``."""
    videos: list[Json] = []
    tubes: list[Json] = []
    for number, clip in enumerate(_clips()[:_VIDEOS], start=1):
        videos.append(
            {
                "id": number * 7,  # test videos keep the ids of the whole set
                "width": clip.width,
                "height": clip.height,
                "length": CLIP_FRAMES,
                "file_names": _frame_names(clip),
            }
        )
        for family, masks in _tubes(clip):
            # A list entry per frame, null where the object is away.
            shown = [mask if mask.any() else None for mask in masks]
            tubes.append(
                {
                    "id": len(tubes) + 1,
                    "video_id": number * 7,
                    "height": clip.height,
                    "width": clip.width,
                    "length": CLIP_FRAMES,
                    "category_id": _CATEGORIES[family],
                    "iscrowd": 0,
                    "segmentations": [None if m is None else rle.to_uncompressed(m) for m in shown],
                    "bboxes": [None if m is None else coco_records.bbox_of(m) for m in shown],
                    "areas": [None if m is None else int(m.sum()) for m in shown],
                }
            )
    categories = [
        {"id": k, "name": name, "supercategory": "object"}
        for k, name in enumerate(_NAMES.split(","), 1)
    ]
    return {
        "info": coco_records.info("ytvis_hq-test"),
        "videos": videos,
        "annotations": tubes,
        "categories": categories,
    }


def frames_zip() -> bytes:
    """Return ``train_all_frames.zip``."""
    members: list[Member] = []
    root = "train_all_frames/JPEGImages"
    for clip in _clips():
        for name, scene in zip(_frame_names(clip), _annotated(clip), strict=True):
            members.append((f"{root}/{name}", jpeg(scene.image)))
        members.append((f"{root}/{clip.name}/00002.jpg", jpeg(clip.scenes()[1].image)))
    return zip_bytes(members, folders=True)


def _track(video: Json, tube: Json, masks: list[BoolMask], *, wrong: bool) -> Json:
    """Return one Mask2Former result: compressed RLE in every frame, empty where nothing is found."""
    rng = rng_of("mask2former", video["id"], tube["id"], wrong)
    found = tracked(masks, stride=6, lost=0.25 if wrong else 0.04, rng=rng)
    score = float(rng.uniform(0.03, 0.4) if wrong else rng.beta(7, 2))
    return {
        "video_id": video["id"],
        "score": round(score, 6),
        "category_id": int(rng.integers(1, 41)) if wrong else tube["category_id"],
        "segmentations": [
            {"size": [video["height"], video["width"]], "counts": rle.encode(m)} for m in found
        ],
    }


def tracks_json() -> bytes:
    """Return ``mask2former_results.json``: a good track per object, and some double or misnamed ones."""
    content = truth()
    results: list[Json] = []
    for video, clip in zip(content["videos"], _clips(), strict=False):
        tubes = [t for t in content["annotations"] if t["video_id"] == video["id"]]
        for tube, (_, masks) in zip(tubes, _tubes(clip), strict=True):
            results.append(_track(video, tube, masks, wrong=False))
            if rng_of("mask2former doubles", tube["id"]).random() < 0.6:
                results.append(_track(video, tube, masks, wrong=True))
    return json_bytes(results)


FILES = {
    "train_all_frames.zip": frames_zip,
    "ytvis_hq-test.json": lambda: json_bytes(truth()),
    "mask2former_results.json": tracks_json,
}
