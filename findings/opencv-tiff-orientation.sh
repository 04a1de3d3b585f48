#!/usr/bin/env bash
# OpenCV 5.0.0.93, Pillow 13.0.0: a TIFF whose orientation swaps rows and columns cannot be read by OpenCV, and Pillow turns it by itself, which it does for no JPEG.
# Guess: both give the stored pixels or both turn them; Pillow leaves the turning to `ImageOps.exif_transpose`, as it does for JPEG.
# What happens: `cv2.imread` returns None (an internal check of the turning fails, said on stderr alone). Pillow turns the picture when its pixels are
# loaded and takes the tag away; the size is the turned one before that. Whoever reads the tag first and turns afterwards turns twice.
# Seen: OpenCV 5.0.0.93, orientation 6: None. Pillow 13.0.0: 20x30 of a stored 30x20, tag 6 before load and none after; of the JPEG 30x20 and 6 after load
# Hurts: scans and microscopy in TIFF, masks that are drawn on the turned picture.

. "$(dirname "$0")/_setup.sh"
install opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
cat > look.py <<'PY'
import cv2
import numpy as np
from PIL import Image

pixels = np.zeros((20, 30, 3), np.uint8)
pixels[:5, :10] = (255, 0, 0)
tag = 274
picture = Image.fromarray(pixels)
exif = Image.Exif()
exif[tag] = 6
picture.save("turned.tif", tiffinfo={tag: 6})
picture.save("turned.jpg", exif=exif)
read = cv2.imread("turned.tif")
print(f"OpenCV {None if read is None else read.shape};", end=" ")
for name in ("turned.tif", "turned.jpg"):
    with Image.open(name) as image:
        before = image.getexif().get(tag)
        image.load()
        print(f"{name} {image.size} {before} {image.getexif().get(tag)};", end=" ")
PY
seen=$(python look.py 2>/dev/null)
echo "seen now: $seen"
[ "$seen" = "OpenCV None; turned.tif (20, 30) 6 None; turned.jpg (30, 20) 6 6; " ] || { echo "the behaviour changed"; exit 1; }
