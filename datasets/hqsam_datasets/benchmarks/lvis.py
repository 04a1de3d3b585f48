"""LVIS v1 val: 19,809 COCO images, 244,707 objects of 1,203 classes, federated annotation.

Source: Gupta et al., LVIS, CVPR 2019. Licence: annotations CC BY 4.0, images under their Flickr
terms. Layout:
`lvis_v1_val.json` (in a zip of that name); records have no `file_name`: the last two parts of
`coco_url` name the file, 15,000 of them in COCO's `train2017`. `neg_category_ids` and
`not_exhaustive_category_ids` drive the evaluation. Prompts: boxes of ViTDet-H Cascade Mask R-CNN in
the COCO results format, at most 300 an image. Known bad files: none.
"""

from __future__ import annotations

from typing import Any

from hqsam_datasets.benchmarks.cocolike import CocoLike


def _path(image: dict[str, Any]) -> str:
    return "/".join(str(image["coco_url"]).split("/")[-2:])


BENCHMARK = CocoLike(
    name="lvis",
    kind="lvis",
    dataset_version="LVIS v1 val",
    class_agnostic=False,
    annotations="lvis_v1_val.json",
    detections="lvis_instances_results.json",
    locate=_path,
    place="coco_url",
)
