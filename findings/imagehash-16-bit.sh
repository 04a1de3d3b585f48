#!/usr/bin/env bash
# ImageHash 4.3.2 with Pillow 13.0.0: any two 16-bit pictures without dark parts have the same hash.
# Guess: a 16-bit picture hashes like its 8-bit copy.
# What happens: the hashes call convert("L"), which cuts 16-bit values off at 255 and does not scale them: all is white.
# Seen: distance of two different pictures: 16 bits 0 (phash, dhash, average_hash), 8 bits 26 or more
# Hurts: duplicate search in medical, depth and raw data: everything is a duplicate of everything.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 PyWavelets==1.9.0
install --no-deps ImageHash==4.3.2
python - <<'PY'
import imagehash
import numpy as np
from PIL import Image

y, x = np.mgrid[:200, :260]
pictures = [1000 + 500 * (1 + np.sin(x / 31 + y / 47)) * 60, 1000 + 500 * (1 + np.cos(x / 17) * np.sin(y / 23)) * 60]
deep = [Image.fromarray(picture.astype(np.uint16)) for picture in pictures]
shallow = [Image.fromarray((picture / 257).astype(np.uint8)) for picture in pictures]
kinds = (imagehash.phash, imagehash.dhash, imagehash.average_hash)
seen = [[int(kind(a) - kind(b)) for kind in kinds] for a, b in (deep, shallow)]
print(f"seen now: ImageHash {imagehash.__version__}: distances of two pictures: 16 bits {seen[0]}, 8 bits {seen[1]}")
assert seen[0] == [0, 0, 0] and min(seen[1]) > 8, "the behaviour changed"
PY
