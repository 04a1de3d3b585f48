#!/usr/bin/env bash
# mosaicml-streaming 0.10.0: the MDS encoding `pil` drops the palette of label pictures.
# Guess: both `pil` and `png` give the picture back as it was written, palette included.
# What happens: `pil` keeps mode, size and pixels only; a picture of mode P comes back with an empty palette. Its label numbers
#     are right, but `convert("RGB")` and `save("x.png")`, which any viewer or submission goes through, make it black.
#     `png` keeps the palette.
# Seen: mosaicml-streaming 0.10.0, Pillow 13.0.0: pil: mode P, colours [(0, 0, 0)]; png: the three colours
# Hurts: DAVIS-style and VOC-style label maps in MDS shards, whose labels are told by their colour further on.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pillow==13.0.0 mosaicml-streaming==0.10.0
cat > palette.py <<'PY'
import tempfile

import numpy as np
from PIL import Image
from streaming import MDSWriter, StreamingDataset

if __name__ == "__main__":
    labels = np.zeros((20, 30), np.uint8)
    labels[5:10, 5:20], labels[10:15, 5:20] = 1, 2
    picture = Image.fromarray(labels)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
    seen = {}
    for encoding in ("pil", "png"):
        folder = tempfile.mkdtemp(dir=".")
        with MDSWriter(out=folder + "/shards", columns={"mask": encoding}) as writer:
            writer.write({"mask": picture})
        back = StreamingDataset(local=folder + "/shards", batch_size=1, shuffle=False)[0]["mask"]
        assert back.mode == "P" and (np.asarray(back) == labels).all(), "the behaviour changed"
        seen[encoding] = sorted({colour for _, colour in back.convert("RGB").getcolors()})
        print(f"seen now: {encoding}: mode {back.mode}, colours {seen[encoding]}")
    assert seen["png"] == [(0, 0, 0), (0, 128, 0), (128, 0, 0)], "the behaviour changed"
    assert seen["pil"] == [(0, 0, 0)], "the behaviour changed"
PY
python palette.py
