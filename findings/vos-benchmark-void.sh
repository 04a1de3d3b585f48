#!/usr/bin/env bash
# vos-benchmark 0.1.0: the void label 255 of the ground truth is scored as an object of its own.
# Guess: pixels of 255 are left out, as in the DAVIS 2017 unsupervised ground truth and its official evaluator.
# What happens: 255 becomes object 255 with J and F 0, since no prediction has it: a perfect result of one object scores 50.
# Seen: vos-benchmark 0.1.0: perfect prediction beside a void area: J&F 50.0; per object {1: 100.0, 255: 0.0}
# Hurts: video results on ground truth with void areas; the loss is the larger, the fewer objects a video has.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pillow==13.0.0 opencv-python-headless==5.0.0.93 scikit-image==0.26.0 tqdm==4.70.1
install --no-deps vos-benchmark==0.1.0 # with the headless OpenCV
cat > void.py <<'PY'
from pathlib import Path

import numpy as np
from PIL import Image
from vos_benchmark.benchmark import benchmark

if __name__ == "__main__":
    for frame in range(4):
        mask = np.zeros((60, 80), np.uint8)
        mask[10:30, 10:40] = 1
        for folder, void in (("found", 0), ("truth", 255)):
            mask[40:50, 50:70] = void
            Path(folder, "video").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(f"{folder}/video/{frame:05d}.png")
    total, _, _, per_object = benchmark(["truth"], ["found"], num_processes=1, verbose=False)
    seen = (float(total[0]), {key: float(value) for key, value in per_object[0]["video"][0].items()})
    print(f"seen now: J&F {seen[0]}, J per object {seen[1]}")
    assert seen == (50.0, {1: 100.0, 255: 0.0}), "the behaviour changed"
PY
python void.py
