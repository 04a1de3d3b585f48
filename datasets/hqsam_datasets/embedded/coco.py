"""COCO val2017: images, ``annotations_trainval2017.zip``, and a detector's result file.

Polygons with holes cut open, crowd regions as uncompressed RLE, sparse category ids 1..90, one grey
photograph.
"""

from __future__ import annotations

import functools

from hqsam_datasets.embedded import coco_records
from hqsam_datasets.embedded.coco_records import Json
from hqsam_datasets.embedded.evaluation import COCO_CATEGORY_OF_FAMILY, Photo, coco_val
from hqsam_datasets.embedded.packing import json_bytes, rng_of, zip_bytes

_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop "
    "sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis "
    "racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot "
    "dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell "
    "phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
_SUPER = (
    ("person", 1),
    ("vehicle", 9),
    ("outdoor", 15),
    ("animal", 25),
    ("accessory", 33),
    ("sports", 43),
    ("kitchen", 51),
    ("food", 61),
    ("furniture", 70),
    ("electronic", 77),
    ("appliance", 82),
    ("indoor", 90),
)


def categories() -> list[Json]:
    """Return the 80 categories with their ids 1..90, of which ten are unused."""
    ids = [i for i in range(1, 91) if i not in _UNUSED_IDS]
    return [
        {
            "supercategory": next(s for s, last in _SUPER if number <= last),
            "id": number,
            "name": name,
        }
        for number, name in zip(ids, _NAMES.split(","), strict=True)
    ]


def image_record(photo: Photo, folder: str) -> Json:
    """Return the ``images`` record of a COCO photograph."""
    name = f"{photo.name}.jpg"
    return {
        "license": 4,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/{folder}/{name}",
        "height": photo.height,
        "width": photo.width,
        "date_captured": "2013-11-14 17:02:52",
        "id": int(photo.name),
    }


def _records(photo: Photo) -> list[Json]:
    """Return the annotations of one photograph, without ids."""
    records = []
    for obj in coco_records.singles(photo):
        drawn = coco_records.with_polygons(obj)
        if drawn is not None:
            records.append(
                {**drawn, "iscrowd": 0, "category_id": COCO_CATEGORY_OF_FAMILY[obj.family]}
            )
    group = coco_records.crowd(photo)
    if group:
        region = coco_records.with_rle([o.alpha for o in group], compressed=False)
        records.append(
            {**region, "iscrowd": 1, "category_id": COCO_CATEGORY_OF_FAMILY[group[0].family]}
        )
    return [{**record, "image_id": int(photo.name)} for record in records]


@functools.lru_cache(maxsize=1)
def instances() -> Json:
    """Return ``instances_val2017.json``: annotations in random order with sparse ids, as published."""
    photos = coco_val()
    records = [record for photo in photos for record in _records(photo)]
    ids = rng_of("coco", "annotation ids").choice(900_000, size=len(records), replace=False) + 1000
    for record, number in zip(records, ids, strict=True):
        record["id"] = int(number)
    return {
        "info": coco_records.info("instances_val2017"),
        "licenses": [{"url": "", "id": 4, "name": "generated"}],
        "images": [image_record(photo, "val2017") for photo in photos],
        "annotations": sorted(records, key=lambda r: (r["iscrowd"], r["id"])),
        "categories": categories(),
    }


def val2017_zip() -> bytes:
    """Return ``val2017.zip`` (root folder ``val2017/``)."""
    return zip_bytes(
        [(f"val2017/{photo.name}.jpg", photo.file()) for photo in coco_val()], folders=True
    )


def annotations_zip() -> bytes:
    """Return ``annotations_trainval2017.zip``: the val file and a train file that the evaluation does not need."""
    unused = {**instances(), "images": [], "annotations": []}
    return zip_bytes(
        [
            ("annotations/instances_train2017.json", json_bytes(unused)),
            ("annotations/instances_val2017.json", json_bytes(instances())),
        ]
    )


def detections_json() -> bytes:
    """Return ``coco_instances_results.json``: boxes of a detector with all 80 classes (it mixes up those that look alike)."""
    truth = instances()
    things = [a for a in truth["annotations"] if not a["iscrowd"]]
    confusable = sorted(set(COCO_CATEGORY_OF_FAMILY.values()))
    return json_bytes(
        coco_records.detector_results("coco detector", truth["images"], things, confusable)
    )


FILES = {
    "val2017.zip": val2017_zip,
    "annotations_trainval2017.zip": annotations_zip,
    "coco_instances_results.json": detections_json,
}
