#!/usr/bin/env bash
# pdqhash 0.2.8: the hash of a picture in Fortran memory order has nothing to do with the picture.
# Guess: equal pixels, equal hash; views with reversed axes are handled (they are).
# What happens: an array in Fortran order is hashed as if it were in C order: about half of the 256 bits differ.
# Seen: bits that differ from the C array: mirrored view against its copy 0, Fortran order 114 of 256
# Hurts: near-duplicate search over masks or overlays that come from pycocotools.mask.decode (Fortran order): every match is lost.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pdqhash==0.2.8
python - <<'PY'
import numpy as np
import pdqhash

y, x = np.mgrid[:200, :260]
waves = [np.sin(x / 31 + y / 47), np.cos(x / 17) * np.sin(y / 23), np.sin((x - 130) ** 2 / 9000 + y / 60)]
picture = np.stack([(127 + 120 * wave).astype(np.uint8) for wave in waves], axis=-1)


def differing(a: np.ndarray, b: np.ndarray) -> int:
    return int((pdqhash.compute(a)[0] != pdqhash.compute(b)[0]).sum())


mirrored = picture[:, ::-1]
view, order = differing(mirrored, mirrored.copy()), differing(picture, np.asfortranarray(picture))
print(f"seen now: mirrored view against its copy {view}, Fortran order against C order {order} of 256 bits")
assert view == 0 and order > 64, "the behaviour changed"
PY
