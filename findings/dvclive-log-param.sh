#!/usr/bin/env bash
# dvclive 3.49.1: one parameter that log_param refuses makes it refuse every later one, and params.yaml stays empty.
# Guess: the one call raises; what was logged before and comes after is kept.
# What happens: the refused value stays in the table that each call writes as a whole: a valid parameter now raises the error
#   of the other, and the file has been emptied, the parameters before it too.
# Seen: dvclive 3.49.1: after numpy.float64 is refused: log_param("epochs", 12) raises, params.yaml has 0 bytes; before 8 bytes
# Hurts: runs that catch the error, or log hyperparameters in a loop: the record of the run loses all of them.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 dvclive==3.49.1
python - <<'PY'
import importlib.metadata
from pathlib import Path

import numpy as np
from dvclive import Live
from dvclive.error import InvalidParameterTypeError

sizes, raised = [], []
with Live("run", save_dvc_exp=False) as live:
    for name, value in (("seed", 7), ("ratio", np.float64(0.02)), ("epochs", 12)):
        try:
            live.log_param(name, value)
            raised.append(False)
        except InvalidParameterTypeError as error:
            raised.append(True)
            print(f"{name}: {error}")
        sizes.append(Path("run/params.yaml").stat().st_size)
print(f"seen now: dvclive {importlib.metadata.version('dvclive')}: raised {raised}, bytes of params.yaml {sizes}")
assert raised == [False, True, True] and sizes[1:] == [0, 0] and sizes[0] > 0, "the behaviour changed"
PY
