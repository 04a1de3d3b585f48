#!/usr/bin/env bash
# torchmetrics 1.9.0: the Hausdorff distance of a mask to itself is not 0 in pictures wider than high.
# Guess: 0 for equal masks of any picture size, and for others what SciPy's directed distances give.
# What happens: the distance map is filled by row times height, not row times width. In a landscape picture that scatters the
#     distances and no error is raised: equal masks get 19, as does a shift by 3 pixels. In a portrait picture the same line raises
#     IndexError (reported as Lightning-AI/torchmetrics#3300); square pictures are right.
# Seen: torchmetrics 1.9.0, torch 2.13.0: equal masks: 40x40 0.0, 40x50 19.0; shifted by 3: 40x40 3.0, 40x50 19.0
# Hurts: boundary tables of photographs; only pictures cropped to squares get true numbers.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 torch==2.13.0 torchmetrics==1.9.0
cat > landscape.py <<'PY'
import torch
from torchmetrics.functional.segmentation import hausdorff_distance

seen = {}
for width in (40, 50):
    mask = torch.zeros(1, 40, width, dtype=torch.long)
    mask[:, 10:30, 8:32] = 1
    for name, other in (("equal", mask), ("shifted by 3", torch.roll(mask, 3, 2))):
        value = hausdorff_distance(mask, other, num_classes=2, include_background=False, input_format="index")
        seen[name, width] = round(float(value), 1)
        print(f"seen now: {name}, 40x{width}: {seen[name, width]}")
assert seen["equal", 40] == 0.0 and seen["shifted by 3", 40] == 3.0, "the behaviour changed"
assert seen["equal", 50] > 5 and seen["shifted by 3", 50] > 5, "the behaviour changed"
PY
python landscape.py
