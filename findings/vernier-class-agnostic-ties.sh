#!/usr/bin/env bash
# vernier 0.5.4: with `useCats = 0` detections of one score are ranked in another order than by pycocotools 2.0.11.
# Guess: `vernier.COCOeval`, whose default is the strict parity mode, gives pycocotools' AP on every valid input, ties included.
# What happens: pycocotools lines up an image's detections category by category before its stable sort, vernier as the file
#     lists them. Two detections of one score, the wrong one first in the file and of the later category: AP 1.0 against 0.5.
#     With `useCats = 1`, or with different scores, both agree.
# Seen: vernier 0.5.4, pycocotools 2.0.11: AP pycocotools 1.0, vernier 0.5; classes kept: 1.0 and 1.0
# Hurts: class-agnostic evaluation (UVO, open-world proposals) of models whose scores tie: rounded scores, constant scores.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pycocotools==2.0.11 vernier==0.5.4
cat > ties.py <<'PY'
import contextlib
import io

import numpy as np
import vernier
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def encode(rows: slice, columns: slice) -> dict[str, object]:
    mask = np.zeros((40, 60), np.uint8)
    mask[rows, columns] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [40, 60], "counts": rle["counts"].decode()}


def ap(program: type, scores: tuple[float, float], use_categories: int) -> float:
    truth, right, wrong = COCO(), encode(slice(5, 25), slice(5, 30)), encode(slice(30, 38), slice(40, 55))
    truth.dataset = {
        "images": [{"id": 1, "height": 40, "width": 60}],
        "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 500.0,
                         "bbox": [5.0, 5.0, 25.0, 20.0], "segmentation": right}],
    }
    truth.createIndex()
    rows = [
        {"image_id": 1, "category_id": 2, "segmentation": wrong, "score": scores[0]},
        {"image_id": 1, "category_id": 1, "segmentation": right, "score": scores[1]},
    ]
    found = truth.loadRes(rows)
    for row in found.dataset["annotations"]:  # vernier wants plain lists and numbers
        row["bbox"] = [float(value) for value in row["bbox"]]
        row["area"] = float(row["area"])
    evaluation = program(truth, found, "segm")
    evaluation.params.useCats = use_categories
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return round(float(evaluation.stats[0]), 3)


with contextlib.redirect_stdout(io.StringIO()):
    seen = {
        name: [ap(program, scores, use) for program in (COCOeval, vernier.COCOeval)]
        for name, scores, use in (
            ("tied, class-agnostic", (0.5, 0.5), 0),
            ("tied, classes kept", (0.5, 0.5), 1),
            ("0.6 for the right one, class-agnostic", (0.5, 0.6), 0),
        )
    }
for name, (official, peer) in seen.items():
    print(f"seen now: {name}: pycocotools {official}, vernier {peer}")
values = list(seen.values())
assert values[0][0] == 1.0 and values[0][1] < 0.6, "the behaviour changed"
assert values[1] == [1.0, 1.0] and values[2] == [1.0, 1.0], "the behaviour changed"
PY
python ties.py
