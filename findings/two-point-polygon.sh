#!/usr/bin/env bash
# faster-coco-eval 1.8.0, ultrafast-pycocotools 0.1.14, hotcoco 1.3.0: a polygon of two points becomes a filled rectangle.
# Guess: an empty mask (a line has no area), or an error, as for other degenerate polygons.
# What happens: a first polygon with four numbers is read as a box [x, y, width, height]: the line from (2, 2) to (9, 9) covers
#   81 pixels. As the second polygon of a list the same line is empty. pycocotools 2.0.11 raises TypeError.
# Seen: alone: faster-coco-eval 81, ultrafast 81, hotcoco 81, pycocotools TypeError; after a square of 36 pixels: 0 in all four
# Hurts: sets with degenerate polygons (a thin part simplified to its ends): areas, masks and AP change with the evaluator.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pycocotools==2.0.11 ultrafast-pycocotools==0.1.14 hotcoco==1.3.0 opencv-python-headless==5.0.0.93
install --no-deps faster-coco-eval==1.8.0 # masks alone need none of its plotting libraries
python - <<'PY'
import importlib

import numpy as np

line, square = [2.0, 2.0, 9.0, 9.0], [2.0, 2.0, 2.0, 8.0, 8.0, 8.0, 8.0, 2.0]


def areas(name: str) -> tuple:
    mask = importlib.import_module(name)
    second = int(np.asarray(mask.decode(mask.frPyObjects([square, line], 20, 30)[1])).sum())
    try:
        alone = int(np.asarray(mask.decode(mask.frPyObjects([line], 20, 30)[0])).sum())
    except TypeError:
        alone = "TypeError"
    return alone, second


names = ("faster_coco_eval.core.mask", "ultrafast_pycocotools.mask", "hotcoco.mask", "pycocotools.mask")
seen = {name: areas(name) for name in names}
print(f"seen now: pixels (alone, second of two): {seen}")
assert list(seen.values()) == [(81, 0)] * 3 + [("TypeError", 0)], "the behaviour changed"
PY
