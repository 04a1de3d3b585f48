#!/usr/bin/env bash
# sahi 0.12.8: reading a COCO file turns crowd regions into ordinary objects, and slicing gives them a full rectangle as mask.
# Guess: crowds keep iscrowd 1; RLE, which sahi says it cannot read, is left out.
# What happens: a warning names the skipped RLE, but the annotation stays: iscrowd 0, area of its box, and after slice_coco
#   a segmentation that is the whole box.
# Seen: sahi 0.12.8: iscrowd 1 -> 0, area 25 -> 875, sliced mask area 875
# Hurts: tiled training and evaluation on COCO (its crowds are RLE): rectangles are learnt as objects and count as missed.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pillow==13.0.0 sahi==0.12.8
python - <<'PY'
import contextlib
import importlib.metadata
import io
import json

from PIL import Image
from sahi.slicing import slice_coco
from sahi.utils.coco import Coco

Image.new("RGB", (50, 40)).save("a.jpg")
crowd = {
    "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 25, "bbox": [5, 5, 35, 25],
    "segmentation": {"size": [40, 50], "counts": [205, 12, 1376, 13, 394]},
}  # fmt: skip
data = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 50}],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [crowd],
}
with open("coco.json", "w") as file:
    json.dump(data, file)
with contextlib.redirect_stderr(io.StringIO()):
    (read,) = Coco.from_coco_dict_or_path("coco.json").json["annotations"]
    sliced, _ = slice_coco("coco.json", ".", "sliced", output_dir="slices", slice_height=40, slice_width=50)
(cut,) = sliced["annotations"]
x, y, width, height = cut["bbox"]
seen = (read["iscrowd"], read["area"], cut["iscrowd"], cut["area"], sorted(cut["segmentation"][0]))
print(f"seen now: sahi {importlib.metadata.version('sahi')}: read iscrowd, area; sliced iscrowd, area, corners: {seen}")
rectangle = sorted([x, y, x + width, y, x + width, y + height, x, y + height])
assert seen == (0, 875, 0, 875, rectangle), "the behaviour changed"
PY
