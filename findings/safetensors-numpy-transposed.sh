#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy.save writes the wrong numbers for an array in Fortran order.
# Guess: it stores the values, or refuses as safetensors.torch does for tensors that are not contiguous.
# What happens: the memory is written as it lies, under the shape of the view. The file is valid and loads without a word.
# Seen: safetensors 0.8.0: [[0, 3], [1, 4], [2, 5]] is stored, [[0, 1], [2, 3], [4, 5]] comes back; ascontiguousarray first: right
# Hurts: whoever transposes weights for another framework, or stores masks from pycocotools (Fortran order), in this format.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 safetensors==0.8.0
python - <<'PY'
import numpy as np
import safetensors
from safetensors.numpy import load, save

weight = np.arange(6, dtype=np.float32).reshape(2, 3)


def round_trip(array: np.ndarray) -> list:
    return load(save({"weight": array}))["weight"].astype(int).tolist()


stored, back, right = weight.T.astype(int).tolist(), round_trip(weight.T), round_trip(np.ascontiguousarray(weight.T))
print(f"seen now: safetensors {safetensors.__version__}: stored {stored}, came back {back}, made contiguous first {right}")
assert back == [[0, 1], [2, 3], [4, 5]] and right == stored, "the behaviour changed"
PY
