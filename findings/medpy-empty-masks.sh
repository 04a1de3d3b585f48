#!/usr/bin/env bash
# medpy 0.5.2 with NumPy 2.4.6: the Dice coefficient of two empty masks is NaN, their Jaccard coefficient 1.0.
# Guess: one convention for both (1.0 in the source, or 0.0).
# What happens: both functions wait for ZeroDivisionError to return 1.0. numpy.count_nonzero now returns numpy.int64, so Dice
#   divides NumPy numbers, which gives NaN and a warning; Jaccard converts to float first and still raises.
# Seen: medpy 0.5.2, numpy 2.4.6: count_nonzero gives int64, dc nan, jc 1.0; with numpy 2.2.6 int, 1.0, 1.0
# Hurts: per-image means over sets with true negatives: one NaN makes the mean NaN, and nanmean now leaves those images out.

. "$(dirname "$0")/_setup.sh"
install numpy==2.2.6 scipy==1.17.1
install --no-deps medpy==0.5.2 # for masks it needs no more than these
cat > empty.py <<'PY'
import numpy as np
from medpy.metric.binary import dc, jc

empty = np.zeros((8, 8), bool)
print(type(np.count_nonzero(empty)).__name__, dc(empty, empty), jc(empty, empty))
PY
before=$(python empty.py)
install numpy==2.4.6
after=$(python empty.py)
echo "seen now: count_nonzero, dc, jc: NumPy 2.2.6: $before; NumPy 2.4.6: $after"
[ "$before" = "int 1.0 1.0" ] && [ "$after" = "int64 nan 1.0" ] || { echo "the behaviour changed"; exit 1; }
