#!/usr/bin/env bash
# globox 2.9.0 with pycocotools 2.0.11: a COCO file that goes through globox scores AP 0.25 where 1.0 is right.
# Guess: AnnotationSet.from_coco(...).save_coco(...) keeps the annotation ids, or gives new ones from 1.
# What happens: they are numbered from 0, and COCOeval takes id 0 for "not matched": a found object counts as missed
#   and its detection as false.
# Seen: globox 2.9.0: ids [11, 12] -> [0, 1]; AP of perfect boxes 1.0 -> 0.2525
# Hurts: whoever converts, merges or filters ground truth with globox and evaluates with pycocotools; the loss is 1 object.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pycocotools==2.0.11 globox==2.9.0
python - <<'PY'
import contextlib
import importlib.metadata
import io
import json

import globox
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

box = [5, 5, 35, 25]
truth = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 50} for n in (1, 2)],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [
        {"id": 10 + n, "image_id": n, "category_id": 1, "iscrowd": 0, "area": 875, "bbox": box} for n in (1, 2)
    ],
}


def score(name: str) -> tuple[list[int], float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(name)
        found = [{"image_id": n, "category_id": 1, "bbox": box, "score": 0.9} for n in (1, 2)]
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return sorted(coco.anns), round(float(evaluation.stats[0]), 4)


with open("before.json", "w") as file:
    json.dump(truth, file)
globox.AnnotationSet.from_coco("before.json").save_coco("after.json")
seen = [score("before.json"), score("after.json")]
print(f"seen now: globox {importlib.metadata.version('globox')}: (ids, AP) before and after: {seen}")
assert seen == [([11, 12], 1.0), ([0, 1], 0.2525)], "the behaviour changed"
PY
