#!/usr/bin/env bash
# albumentations 2.0.8 with OpenCV 5.0.0: masks of 64-bit instance ids are cut to 32 bits without a word.
# Guess: OpenCV 5, which brought 64-bit arrays, keeps the ids, or the transform refuses the type as OpenCV 4 did for others.
# What happens: OpenCV's binding turns an int64 array into int32: id 2**32 + 7 comes back as 7 and merges with the object 7,
#     id 2**31 becomes negative. `cv2.flip`, `resize`, `warpAffine` and `copyMakeBorder` do the same.
# Seen: albumentations 2.0.8, OpenCV 5.0.0.93: ids [0, 7, 2147483648, 4294967303] -> int32 [-2147483648, 0, 7]
# Hurts: panoptic and video masks whose ids are hashes or class * 2**32 + number: two objects become one.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 albumentations==2.0.8 opencv-python-headless==5.0.0.93
cat > ids.py <<'PY'
import albumentations
import numpy as np

mask = np.zeros((8, 8), np.int64)
mask[0, 0], mask[2:5, 2:5], mask[6, 6] = 7, 2**32 + 7, 2**31
image = np.zeros((8, 8, 3), np.uint8)
for transform in (albumentations.HorizontalFlip(p=1), albumentations.Resize(16, 16), albumentations.Rotate(p=1)):
    after = albumentations.Compose([transform])(image=image, mask=mask)["mask"]
    ids = np.unique(after).tolist()
    print(f"seen now: {type(transform).__name__}: {np.unique(mask).tolist()} -> {after.dtype} {ids}")
    assert after.dtype == np.int32 and set(ids) <= {-(2**31), 0, 7}, "the behaviour changed"
PY
NO_ALBUMENTATIONS_UPDATE=1 python ids.py
