#!/usr/bin/env bash
# Pillow 13.0.0: rotate and transform with BILINEAR or BICUBIC garble 16-bit pictures (mode I;16).
# Guess: they interpolate 16-bit values, as resize does in the same mode.
# What happens: the two bytes of a pixel are averaged as if they were pixels; a flat area of 40000 comes back as 110.
# Seen: Pillow 13.0.0: shift by half a pixel: 40000 -> 110; resize keeps 40000; NEAREST keeps 40000
# Hurts: augmentation of 16-bit mattes, depth and microscopy images: nearly black pictures, no error.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pillow==13.0.0
python - <<'PY'
import numpy as np
import PIL
from PIL import Image

flat = np.zeros((40, 40), np.uint16)
flat[10:30, 10:30] = 40000
picture = Image.fromarray(flat)


def centre(image: Image.Image) -> int:
    return int(np.array(image)[image.height // 2, image.width // 2])


half_pixel = (1, 0, 0.5, 0, 1, 0)
seen = [centre(picture.transform((40, 40), Image.Transform.AFFINE, half_pixel, Image.Resampling.BILINEAR))]
seen.append(centre(picture.resize((37, 37), Image.Resampling.BILINEAR)))
seen.append(centre(picture.rotate(10, resample=Image.Resampling.NEAREST)))
rotated = max(centre(picture.rotate(10, resample=how)) for how in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC))
print(f"seen now: Pillow {PIL.__version__}: shift by half a pixel: 40000 -> {seen[0]}; resize {seen[1]}; NEAREST {seen[2]}")
print(f"seen now: rotate by 10 degrees: at most {rotated} in the middle")
assert seen == [110, 40000, 40000] and rotated < 256, "the behaviour changed"
PY
