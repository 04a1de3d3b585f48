#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: imwrite stores a boolean mask as a picture of 0 and 1.
# Guess: an error, as in 4.12 ("img data type = bool is not supported").
# What happens: imwrite returns True (its log has a line about a fall-back to 8 bits); the PNG holds 0 and 1, so whoever reads
#   masks at "> 127" reads nothing.
# Seen: opencv 5.0.0: imwrite True, values [0, 1], pixels above 127: 0 of 96
# Hurts: code that saved `mask.astype(np.uint8) * 255` only because OpenCV insisted, and lost the cast since.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 opencv-python-headless==5.0.0.93
python - <<'PY'
import cv2
import numpy as np

mask = np.zeros((20, 30), bool)
mask[3:9, 4:20] = True
written = cv2.imwrite("mask.png", mask)
back = cv2.imread("mask.png", cv2.IMREAD_UNCHANGED)
seen = (written, np.unique(back).tolist(), int((back > 127).sum()))
print(f"seen now: opencv {cv2.__version__}: imwrite {seen[0]}, values {seen[1]}, pixels above 127: {seen[2]} of {mask.sum()}")
assert seen == (True, [0, 1], 0), "the behaviour changed"
PY
