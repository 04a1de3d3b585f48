#!/usr/bin/env bash
# tidecv 1.0.1: a class with detections but no object in the ground truth counts as AP 0; COCOeval leaves it out: 50 against 100.
# Guess: its AP50 is COCOeval's, whose files it reads and whose AP it sets its errors against.
# What happens: classes are those of the detections as well as those of the ground truth, and the mean is over all of them.
# Seen: tidecv 1.0.1, pycocotools 2.0.11: perfect masks of class 1, one detection of class 2, which has no object: COCOeval 100.0, tidecv 50.0
# Hurts: subsets of COCO and LVIS, where most classes have no object; TIDE's dAP are then parts of another AP than the one published.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pycocotools==2.0.11 tidecv==1.0.1
cat > run.py <<'PY'
import contextlib
import io
import json

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tidecv import TIDE, datasets


def code(x, y):
    square = np.zeros((60, 60), np.uint8, order="F")
    square[y : y + 15, x : x + 15] = 1
    found = mask.encode(square)
    return {"size": found["size"], "counts": found["counts"].decode()}


images = [{"id": i, "height": 60, "width": 60, "file_name": f"{i}.jpg"} for i in (1, 2)]
objects = [{"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 225.0, "bbox": [5, 5, 15, 15],
            "segmentation": code(5, 5)} for i in (1, 2)]
found = [{"image_id": i, "category_id": 1, "score": 0.9, "segmentation": code(5, 5)} for i in (1, 2)]
found.append({"image_id": 1, "category_id": 2, "score": 0.5, "segmentation": code(40, 40)})
classes = [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
with open("gt.json", "w") as file:
    json.dump({"images": images, "annotations": objects, "categories": classes}, file)
with open("dt.json", "w") as file:
    json.dump(found, file)
with contextlib.redirect_stdout(io.StringIO()):
    truth = COCO("gt.json")
    program = COCOeval(truth, truth.loadRes("dt.json"), "segm")
    program.evaluate()
    program.accumulate()
    program.summarize()
    run = TIDE().evaluate(datasets.COCO("gt.json"), datasets.COCOResult("dt.json"), mode=TIDE.MASK)
print(f"COCOeval {100 * program.stats[1]:.1f}, tidecv {run.ap:.1f}")
PY
seen=$(python run.py)
echo "seen now: tidecv 1.0.1: $seen"
[ "$seen" = "COCOeval 100.0, tidecv 50.0" ] || { echo "the behaviour changed"; exit 1; }
