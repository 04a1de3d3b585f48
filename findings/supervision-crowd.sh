#!/usr/bin/env bash
# supervision 0.31.2: DetectionDataset.as_coco marks every mask with a hole or in several parts as a crowd.
# Guess: such masks become RLE, with iscrowd 0 as for the others.
# What happens: iscrowd is 1. COCO evaluators ignore crowds: the object need not be found, and no detection of it counts.
# Seen: supervision 0.31.2: iscrowd plain 0, hole 1, two parts 1; AP of a file with these two objects and perfect results: -1.0
# Hurts: ground truth exported for evaluation; just the thin, holed and occluded objects drop out, and AP looks better.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 opencv-python-headless==5.0.0.93 pycocotools==2.0.11 scipy==1.17.1 matplotlib==3.11.2 \
    pillow==13.0.0 pyyaml==6.0.3 requests==2.34.2 tqdm==4.70.1 defusedxml==0.7.1 pydeprecate==0.13.0
install --no-deps supervision==0.31.2 # without PyAV, which is for video
python - <<'PY'
import contextlib
import io
import json

import cv2
import numpy as np
import supervision as sv
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

plain = np.zeros((40, 50), bool)
plain[5:30, 5:40] = True
hole, parts = plain.copy(), np.zeros_like(plain)
hole[12:20, 12:20] = False
parts[2:8, 2:8] = parts[20:30, 20:30] = True


def export(masks: list[np.ndarray]) -> list[dict]:
    stack = np.stack(masks)
    found = sv.Detections(xyxy=sv.mask_to_xyxy(stack), mask=stack, class_id=np.zeros(len(masks), int))
    dataset = sv.DetectionDataset(classes=["thing"], images=["a.png"], annotations={"a.png": found})
    dataset.as_coco(annotations_path="coco.json")
    with open("coco.json") as file:
        return json.load(file)["annotations"]


cv2.imwrite("a.png", np.full((40, 50, 3), 90, np.uint8))
crowd = [annotation["iscrowd"] for annotation in export([plain, hole, parts])]
export([hole, parts])
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO("coco.json")
    results = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "segmentation": coco.annToRLE(one), "score": 0.9}
        for one in coco.anns.values()
    ]
    evaluation = COCOeval(coco, coco.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
print(f"seen now: supervision {sv.__version__}: iscrowd plain, hole, two parts {crowd}; AP {evaluation.stats[0]}")
assert crowd == [0, 1, 1] and evaluation.stats[0] == -1, "the behaviour changed"
PY
