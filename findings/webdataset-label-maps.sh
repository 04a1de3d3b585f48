#!/usr/bin/env bash
# webdataset 1.0.2: no image setting of decode() reads a label map: palette indices become colours, 16-bit labels stop at 255.
# Guess: decode("pil") gives the picture as Pillow opens it (mode P or I;16), as the name says.
# What happens: every setting converts to RGB or grey. Label 3 of a palette PNG reads as the brightness of its colour, label 300 as 255.
# Seen: webdataset 1.0.2: palette labels 0-3 read as [29, 47, 65, 82] (l8) and as mode RGB (pil); 16-bit 300 reads as 255
# Hurts: instance and panoptic masks in shards; decode the member's bytes by hand instead.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pillow==13.0.0 webdataset==1.0.2
python - <<'PY'
import io

import numpy as np
import webdataset as wds
from PIL import Image

palette = Image.new("P", (4, 1))
palette.putdata([0, 1, 2, 3])
palette.putpalette([value % 256 for n in range(256) for value in (n * 40, n * 10, 255 - n)])
deep = Image.fromarray(np.array([[0, 1, 300, 60000]], np.uint16))


def member(picture: Image.Image) -> bytes:
    with io.BytesIO() as stream:
        picture.save(stream, "PNG")
        return stream.getvalue()


with wds.TarWriter("shard.tar") as shard:
    shard.write({"__key__": "sample", "palette.png": member(palette), "deep.png": member(deep)})


def read(setting: str, name: str) -> np.ndarray | Image.Image:
    return next(iter(wds.WebDataset("shard.tar", shardshuffle=False).decode(setting)))[name]


modes = [read("pil", name).mode for name in ("palette.png", "deep.png")]
grey, cut = read("l8", "palette.png").ravel().tolist(), read("l8", "deep.png").ravel().tolist()
print(f"seen now: webdataset {wds.__version__}: pil gives {modes}; l8 gives labels 0-3 as {grey}, 0, 1, 300, 60000 as {cut}")
assert modes == ["RGB", "RGB"] and grey == [29, 47, 65, 82] and cut == [0, 1, 255, 255], "the behaviour changed"
PY
