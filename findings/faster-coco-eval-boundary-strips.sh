#!/usr/bin/env bash
# faster-coco-eval 1.8.0: the boundary of a mask that fills a long, low picture loses nearly all of its pixels.
# Guess: `rleToBoundary` gives the band of the Boundary IoU paper on every picture size, as it does on ordinary ones.
# What happens: where the picture is lower than twice the band (width over 25 times the height at the ratio 0.02, 5 times at
#     0.1), the default backend keeps only the ends of a full mask; the library's own OpenCV backend gives the whole band.
#     High, narrow pictures are right.
# Seen: faster-coco-eval 1.8.0: 24x640, mask of 15360 pixels: default 650, opencv 15360; 640x24: 15360 and 15360
# Hurts: boundary AP of text lines, panoramas and scan strips, and of any set that is scored with a wide band.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 faster-coco-eval==1.8.0 pycocotools==2.0.11 opencv-python-headless==5.0.0.93
cat > strips.py <<'PY'
import numpy as np
from faster_coco_eval.core import mask as faster
from pycocotools import mask as coco_mask

seen = {}
for height, width in ((24, 640), (640, 24), (48, 640)):
    rle = coco_mask.encode(np.ones((height, width), np.uint8, order="F"))
    areas = []
    for backend in ("mask_api", "opencv"):
        band = dict(faster.rleToBoundary(dict(rle), dilation_ratio=0.02, backend=backend))
        areas.append(int(coco_mask.area({"size": [height, width], "counts": band["counts"]})))
    seen[height, width] = areas
    print(f"seen now: {height}x{width}, full mask: default backend {areas[0]}, opencv {areas[1]}")
assert seen[24, 640] == [650, 15360], "the behaviour changed"
assert seen[640, 24][0] == seen[640, 24][1] and seen[48, 640][0] == seen[48, 640][1], "the behaviour changed"
PY
python strips.py
