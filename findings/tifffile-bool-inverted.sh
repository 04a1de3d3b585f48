#!/usr/bin/env bash
# tifffile 2026.3.3: imwrite of a boolean mask makes a TIFF that every other reader inverts.
# Guess: true is white for all readers.
# What happens: 1-bit files get the photometric interpretation MINISWHITE (0 is white). tifffile's own imread
#   ignores the tag and gives the mask back, Pillow and OpenCV obey it and give the opposite.
# Seen: tifffile 2026.3.3: MINISWHITE; foreground 96: tifffile 96, Pillow 504, OpenCV 504; with photometric="minisblack" 96, 96, 96
# Hurts: masks exchanged as TIFF; foreground and background change places, and a round trip with tifffile hides it.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pillow==13.0.0 opencv-python-headless==5.0.0.93 tifffile==2026.3.3
python - <<'PY'
import cv2
import numpy as np
import tifffile
from PIL import Image

mask = np.zeros((20, 30), bool)
mask[3:9, 4:20] = True


def foreground(**options: str) -> list[int]:
    tifffile.imwrite("mask.tif", mask, **options)
    readers = (tifffile.imread("mask.tif"), np.array(Image.open("mask.tif")), cv2.imread("mask.tif", cv2.IMREAD_GRAYSCALE))
    return [int((read > 0).sum()) for read in readers]


plain, black = foreground(), foreground(photometric="minisblack")
print(f"seen now: tifffile {tifffile.__version__}: foreground {mask.sum()}: tifffile, Pillow, OpenCV {plain}; minisblack {black}")
assert plain == [96, 504, 504] and black == [96, 96, 96], "the behaviour changed"
PY
