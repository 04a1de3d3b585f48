#!/usr/bin/env bash
# supervision 0.31.2: DetectionDataset.as_coco writes a mask that is one pixel wide without any segmentation.
# Guess: thin masks come out as thin polygons or as RLE; only holes are hard.
# What happens: outlines with fewer than three corners are dropped and nothing takes their place: "segmentation": [], area 17,
#   a box of height 0. supervision reads an empty mask back, pycocotools' annToMask raises IndexError.
# Seen: supervision 0.31.2: segmentation [], box height 0, 0 of 17 pixels come back, annToMask IndexError
# Hurts: data sets of thin structures (wires, cracks, vessels): the objects that boundary metrics are for vanish.

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

wire = np.zeros((1, 40, 50), bool)
wire[0, 3, 3:20] = True
cv2.imwrite("a.png", np.full((40, 50, 3), 90, np.uint8))
found = sv.Detections(xyxy=sv.mask_to_xyxy(wire), mask=wire, class_id=np.zeros(1, int))
sv.DetectionDataset(classes=["wire"], images=["a.png"], annotations={"a.png": found}).as_coco(annotations_path="coco.json")
with open("coco.json") as file:
    (annotation,) = json.load(file)["annotations"]
back = sv.DetectionDataset.from_coco(".", "coco.json", force_masks=True)
pixels = [int(detections.mask.sum()) for _, _, detections in back]
with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO("coco.json")
try:
    coco.annToMask(annotation)
    raised = None
except IndexError as error:
    raised = type(error).__name__
seen = (annotation["segmentation"], annotation["bbox"][3], pixels, raised)
print(f"seen now: supervision {sv.__version__}: segmentation, box height, pixels that come back, annToMask: {seen}")
assert seen == ([], 0, [0], "IndexError"), "the behaviour changed"
PY
