#!/usr/bin/env bash
# faster-coco-eval 1.8.0: mask AP stops with RuntimeError when image ids are above 2^53 and an image lacks a detection of a class.
# Guess: ids up to 2^63 work, as in pycocotools, ultrafast-pycocotools and hotcoco.
# What happens: on this path image ids go through double precision (the message names image 9.0072e+15); neighbouring ids
#   become one, and the sizes of their tables disagree.
# Seen: ids from 1: AP 1.0 (pycocotools 1.0); ids from 2^53: RuntimeError (pycocotools 1.0)
# Hurts: sets whose image ids are 64-bit hashes of file names.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pycocotools==2.0.11 opencv-python-headless==5.0.0.93
install --no-deps faster-coco-eval==1.8.0 # evaluation needs none of its plotting libraries
python - <<'PY'
import contextlib
import io
import json

import numpy as np
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def write(first_id: int) -> list[dict]:
    square = np.zeros((40, 40), np.uint8, order="F")
    square[5:25, 5:25] = 1
    rle = mask.encode(square) | {"counts": mask.encode(square)["counts"].decode()}
    images = [{"id": first_id + n, "file_name": f"{n}.jpg", "height": 40, "width": 40} for n in range(6)]
    one = {"segmentation": rle, "area": 400, "bbox": [5, 5, 20, 20], "iscrowd": 0}
    truth = [one | {"id": n + 1, "image_id": first_id + n, "category_id": 1 + n % 2} for n in range(6)]
    found = [{key: t[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 0.9} for t in truth]
    with open("truth.json", "w") as file:
        json.dump({"images": images, "annotations": truth, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}, file)
    with open("found.json", "w") as file:
        json.dump(found, file)


def average_precision(loader: type, evaluator: type) -> float | str:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = loader("truth.json")
            evaluation = evaluator(coco, coco.loadRes("found.json"), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
    except RuntimeError as error:
        print(error)
        return "RuntimeError"
    return round(float(evaluation.stats[0]), 4)


seen = []
for first_id in (1, 2**53):
    write(first_id)
    seen += [average_precision(FasterCOCO, COCOeval_faster), average_precision(COCO, COCOeval)]
print(f"seen now: AP faster, pycocotools; ids from 1: {seen[:2]}, from 2^53: {seen[2:]}")
assert seen == [1.0, 1.0, "RuntimeError", 1.0], "the behaviour changed"
PY
