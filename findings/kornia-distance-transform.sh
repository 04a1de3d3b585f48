#!/usr/bin/env bash
# kornia 0.9.0: contrib.distance_transform, which promises Euclidean distances, is pixels short away from the axes.
# Guess: a smooth approximation, right to a hundredth of a pixel.
# What happens: distances come out up to a fifth too short; a kernel of 7 instead of 3 hardly helps.
# Seen: kornia 0.9.0: largest error 4.0 px (14.9 given as 10.8); within 5 px of the object 1.1 px; a band of 3 px has 512 pixels, not 496
# Hurts: distance losses, and boundary bands taken from it: they are wider at corners than the evaluator's.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 scipy==1.17.1 torch==2.13.0 packaging==26.3
install --no-deps kornia==0.9.0 kornia-rs==0.2.0
python - <<'PY'
import kornia
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

mask = torch.zeros(1, 1, 64, 64)
mask[..., 20:50, 10:60] = 1
exact = distance_transform_edt(mask[0, 0].numpy() == 0)
given = kornia.contrib.distance_transform(mask)[0, 0].numpy()
short = exact - given
worst = np.unravel_index(short.argmax(), short.shape)
band = [int(((0 < exact) & (distance <= 3)).sum()) for distance in (exact, given)]
seen = [round(float(value), 1) for value in (short.max(), exact[worst], given[worst], short[exact <= 5].max())]
print(f"seen now: kornia {kornia.__version__}: largest error {seen[0]} px ({seen[1]} given as {seen[2]}), within 5 px {seen[3]}")
print(f"seen now: pixels within 3 px: exact {band[0]}, kornia {band[1]}")
assert seen[0] > 3 and seen[3] > 0.9 and band == [496, 512], "the behaviour changed"
PY
