#!/usr/bin/env bash
# datumaro 1.13.12: COCO in, COCO out changes the masks: holes are filled, parts shrink, thin objects lose their mask.
# Guess: an RLE mask that is read and written as COCO again keeps its pixels; at most its id or its form changes.
# What happens: by default every RLE mask that is no crowd is traced into polygons without holes and through pixel centres.
#     A ring of 800 pixels comes back as a filled square, two parts of 240 pixels as 198 (by the file's own area), a line one
#     pixel wide with the segmentation [], and each object's `area` is that of the polygon.
# Seen: datumaro 1.13.12: area before -> after: ring 800 -> 841, two parts 240 -> 198, line 65 -> 65 (no segmentation), crowd 120 -> 120
# Hurts: converted ground truth: mask AP of perfect results falls, boundary AP more; pycocotools cannot read [] as a mask.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pycocotools==2.0.11 datumaro==1.13.12
cat > masks.py <<'PY'
import json
from pathlib import Path

import datumaro
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

ring, parts, line, crowd = (np.zeros((60, 80), np.uint8) for _ in range(4))
ring[10:40, 10:40], ring[20:30, 20:30] = 1, 0
parts[5:9, 50:60], parts[45:55, 50:70] = 1, 1
line[58, 5:70] = 1
crowd[0:4, 0:30] = 1
rows = []
for number, (mask, is_crowd) in enumerate(((ring, 0), (parts, 0), (line, 0), (crowd, 1)), start=1):
    rle = coco_mask.encode(np.asfortranarray(mask))
    box = [float(value) for value in coco_mask.toBbox(rle)]
    rle["counts"] = rle["counts"].decode()
    rows.append({"id": number, "image_id": 1, "category_id": 1, "iscrowd": is_crowd, "area": int(mask.sum()),
                 "bbox": box, "segmentation": rle})
for folder in ("in/images/val", "in/annotations"):
    Path(folder).mkdir(parents=True)
Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save("in/images/val/a.jpg")
Path("in/annotations/instances_val.json").write_text(json.dumps({
    "images": [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 80}],
    "categories": [{"id": 1, "name": "thing", "supercategory": ""}], "annotations": rows, "info": {}, "licenses": []}))
datumaro.Dataset.import_from("in", "coco_instances").export("out", "coco_instances", save_media=False)
after = {row["id"]: row for row in json.loads(Path("out/annotations/instances_val.json").read_text())["annotations"]}
for row in rows:
    got = after[row["id"]]
    kind = "RLE" if isinstance(got["segmentation"], dict) else f"{len(got['segmentation'])} polygons"
    print(f"seen now: area {row['area']} -> {got['area']:.0f}, crowd {row['iscrowd']} -> {got['iscrowd']}, {kind}")
assert [after[key]["area"] for key in (1, 2, 4)] == [841, 198, 120], "the behaviour changed"
assert after[3]["segmentation"] == [] and len(after[1]["segmentation"]) == 1, "the behaviour changed"
PY
python masks.py 2> errors.txt || { cat errors.txt; exit 1; }
