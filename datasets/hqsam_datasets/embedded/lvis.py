"""LVIS v1 val: images of COCO's val2017 *and* train2017, the annotation file, and a detector's result file.

Records have no ``file_name``, only ``coco_url``; ``neg_category_ids`` and
``not_exhaustive_category_ids`` per image; frequencies r, c and f. Category ids here are not the
official ones.
"""

from __future__ import annotations

import functools

from hqsam_datasets.embedded import coco_records
from hqsam_datasets.embedded.coco import image_record, val2017_zip
from hqsam_datasets.embedded.coco_records import Json
from hqsam_datasets.embedded.evaluation import lvis_train, lvis_val
from hqsam_datasets.embedded.packing import json_bytes, rng_of, zip_bytes

_CATEGORIES = (
    # id, name, frequency, shape family (None: never shown, only ruled out)
    (3, "airplane", "f", "airplane"),
    (11, "antler", "r", "antlers"),
    (12, "apple", "f", "apple"),
    (94, "bicycle", "f", "bicycle"),
    (99, "bird", "f", "bird"),
    (133, "bottle", "f", "bottle"),
    (181, "butterfly", "c", "butterfly"),
    (207, "car_(automobile)", "f", "car"),
    (225, "cat", "f", "cat"),
    (232, "chair", "f", "chair"),
    (344, "cup", "f", "cup"),
    (417, "feather", "c", "feather"),
    (442, "fish", "c", "fish"),
    (501, "fork", "f", None),
    (640, "lamp", "f", None),
    (702, "mesh_bag", "r", "net_bag"),
    (871, "racket", "f", None),
    (911, "sailboat", "c", "sailing_boat"),
    (923, "scissors", "f", "scissors"),
    (1011, "spoon", "f", None),
    (1018, "T-shirt", "f", "shirt"),
    (1069, "teapot", "c", "teapot"),
    (1071, "teddy_bear", "f", "teddy_bear"),
    (1117, "truck", "f", "truck"),
    (1120, "turtle", "r", "turtle"),
    (1140, "vase", "f", "vase"),
)
_ID_OF_FAMILY = {family: number for number, _, _, family in _CATEGORIES if family}
_MIN_INSTANCES = {"r": (3, 7), "c": (40, 90), "f": (800, 2400)}


@functools.lru_cache(maxsize=1)
def truth() -> Json:
    """Return ``lvis_v1_val.json``."""
    images, records = [], []
    photos = [(p, "val2017") for p in lvis_val()] + [(p, "train2017") for p in lvis_train()]
    for photo, folder in sorted(photos, key=lambda item: int(item[0].name)):
        mine = []
        for obj in [*coco_records.singles(photo), *coco_records.crowd(photo)]:
            drawn = coco_records.with_polygons(obj)
            if drawn is not None:
                mine.append(
                    {**drawn, "image_id": int(photo.name), "category_id": _ID_OF_FAMILY[obj.family]}
                )
        # Some absent classes ruled out, some present ones not fully annotated; no `file_name`.
        shown = {record["category_id"] for record in mine}
        rng = rng_of("lvis", "federated", photo.name)
        absent = sorted({number for number, *_ in _CATEGORIES} - shown)
        negative = sorted(int(c) for c in rng.choice(absent, size=3, replace=False))
        partial = [c for c in sorted(shown) if rng.random() < 0.15]
        record = image_record(photo, folder)
        del record["file_name"]
        images.append(
            {**record, "neg_category_ids": negative, "not_exhaustive_category_ids": partial}
        )
        records += mine
    categories = [
        {
            "id": number,
            "name": name,
            "synset": f"{name}.n.01",
            "synonyms": [name],
            "def": f"a generated {name}",
            "frequency": frequency,
            "image_count": _MIN_INSTANCES[frequency][0],
            "instance_count": _MIN_INSTANCES[frequency][1],
        }
        for number, name, frequency, _ in _CATEGORIES
    ]
    return {
        "info": coco_records.info("lvis_v1_val"),
        "licenses": [{"id": 4, "name": "generated", "url": ""}],
        "images": images,
        "annotations": [{**record, "id": number} for number, record in enumerate(records, start=1)],
        "categories": categories,
    }


def train2017_zip() -> bytes:
    """Return ``train2017.zip``: LVIS val's images from it and one that LVIS does not use."""
    photos = lvis_train()
    unused = ("train2017/000000000009.jpg", photos[0].file())
    return zip_bytes(
        [unused, *((f"train2017/{p.name}.jpg", p.file()) for p in photos)], folders=True
    )


def annotations_zip() -> bytes:
    """Return ``lvis_v1_val.json.zip``."""
    return zip_bytes([("lvis_v1_val.json", json_bytes(truth()))])


def detections_json() -> bytes:
    """Return ``lvis_instances_results.json``."""
    content = truth()
    ids = [number for number, *_ in _CATEGORIES]
    return json_bytes(
        coco_records.detector_results(
            "lvis detector", content["images"], content["annotations"], ids
        )
    )


FILES = {
    "val2017.zip": val2017_zip,
    "train2017.zip": train2017_zip,
    "lvis_v1_val.json.zip": annotations_zip,
    "lvis_instances_results.json": detections_json,
}
