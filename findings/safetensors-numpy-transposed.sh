#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy.save writes the wrong numbers for an array in Fortran order.
# Guess: it stores the values, as 0.7.0 does, or refuses as safetensors.torch does for tensors that are not contiguous.
# What happens: the memory is written as it lies, under the shape of the view. The file is valid and loads without a word.
#   Others met it, too: safetensors/safetensors#825.
# Seen: [[0, 3], [1, 4], [2, 5]] is stored and comes back as [[0, 1], [2, 3], [4, 5]]; right with 0.7.0, and after ascontiguousarray
# Hurts: whoever transposes weights for another framework, or stores masks from pycocotools (Fortran order), in this format.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 safetensors==0.7.0
cat > round_trip.py <<'PY'
import numpy as np
from safetensors.numpy import load, save

weight = np.arange(6, dtype=np.float32).reshape(2, 3).T
for array in (weight, np.ascontiguousarray(weight)):
    print(load(save({"weight": array}))["weight"].astype(int).tolist(), end=" ")
PY
before=$(python round_trip.py)
install safetensors==0.8.0
after=$(python round_trip.py)
echo "seen now: transposed, made contiguous first: 0.7.0: $before; 0.8.0: $after"
right="[[0, 3], [1, 4], [2, 5]]"
[ "$before" = "$right $right " ] && [ "$after" = "[[0, 1], [2, 3], [4, 5]] $right " ] || { echo "the behaviour changed"; exit 1; }
