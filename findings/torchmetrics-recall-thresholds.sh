#!/usr/bin/env bash
# torchmetrics 1.9.0: MeanAveragePrecision differs from pycocotools, which it calls, because its recall thresholds are single precision.
# Guess: the same AP to the last digits; the documentation names pycocotools as the backend.
# What happens: the 101 thresholds come from torch.linspace: 0.2 becomes 0.200000003. A recall that is exactly 0.2 (one of five
#   objects) no longer reaches it and the next, lower precision is taken. rec_thresholds in double precision cure it.
# Seen: five objects, right and wrong masks by turns: 0.6815 by default, 0.6819 with double precision and from pycocotools
# Hurts: tables that compare AP from torchmetrics with AP from COCOeval: differences of 0.1 points on small sets, either way.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 torch==2.13.0 packaging==26.3 lightning-utilities==0.15.3 pycocotools==2.0.11 pillow==13.0.0
install --no-deps torchmetrics==1.9.0 torchvision==0.28.0 # its operators are not used here
python - <<'PY'
import contextlib
import io

import torch

if "+cpu" in torch.__version__:  # beside it a CUDA build of torchvision has no operators; it imports once these are named
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor x) -> Tensor")
import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import MeanAveragePrecision

masks = torch.zeros(10, 20, 200, dtype=torch.bool)
for n in range(10):
    masks[n, 5:15, 20 * n : 20 * n + 10] = True
truth, scores = masks[::2], torch.linspace(0.9, 0.1, 10)


def torchmetrics_ap(**options: list[float]) -> float:
    metric = MeanAveragePrecision(iou_type="segm", **options)
    found = {"masks": masks, "scores": scores, "labels": torch.ones(10, dtype=torch.int64)}
    metric.update([found], [{"masks": truth, "labels": torch.ones(5, dtype=torch.int64)}])
    return round(float(metric.compute()["map"]), 4)


def pycocotools_ap() -> float:
    encoded = [rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks]
    one = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 100}
    coco = COCO()
    coco.dataset = {"images": [{"id": 1, "height": 20, "width": 200}], "categories": [{"id": 1}]}
    coco.dataset["annotations"] = [one | {"id": n + 1, "segmentation": encoded[2 * n]} for n in range(5)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        found = [one | {"segmentation": each, "score": float(score)} for each, score in zip(encoded, scores, strict=True)]
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 4)


seen = [torchmetrics_ap(), torchmetrics_ap(rec_thresholds=np.linspace(0, 1, 101).tolist()), pycocotools_ap()]
print(f"seen now: AP torchmetrics, with double-precision thresholds, pycocotools: {seen}")
assert seen == [0.6815, 0.6819, 0.6819], "the behaviour changed"
PY
