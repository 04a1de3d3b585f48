#!/usr/bin/env bash
# ray 2.60.0: a shard in which one sample lacks an optional picture cannot be read by `ray.data.read_webdataset`.
# Guess: the sample comes with None in that field, as datasets 5.2.0 and a loop over webdataset's dictionaries handle it.
# What happens: the whole read ends in "Tried to cast column mask.png to the TensorArray tensor extension type", which names
#     neither the shard nor the sample.
# Seen: ray 2.60.0: 12 samples with a mask each: 12 rows; one without: ValueError, TensorArray
# Hurts: shards with optional files (a noisy mask, depth, a caption's picture), which the format allows.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pillow==13.0.0 pandas==2.3.3 pyarrow==21.0.0 "ray[data]==2.60.0"
cat > shards.py <<'PY'
import io
import logging
import tarfile
from pathlib import Path

import numpy as np
import ray
import ray.data
from PIL import Image


def write(path: str, without: int | None) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(picture, "PNG")
    with tarfile.open(path, "w") as tar:
        for sample in range(12):
            for extension in ("png", "mask.png"):
                if sample == without and extension == "mask.png":
                    continue
                member = tarfile.TarInfo(f"{sample:03d}.{extension}")
                member.size = len(picture.getvalue())
                tar.addfile(member, io.BytesIO(picture.getvalue()))


write("whole.tar", None)
write("optional.tar", 8)
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20, logging_level=logging.CRITICAL)
seen = {}
for name in ("whole", "optional"):
    try:
        seen[name] = f"{len(ray.data.read_webdataset(str(Path(name + '.tar').resolve())).take_all())} rows"
    except Exception as error:
        seen[name] = "TensorArray" if "TensorArray" in str(error) else f"{type(error).__name__}: {error}"[:300]
print(f"seen now: {seen}")
ray.shutdown()
assert seen == {"whole": "12 rows", "optional": "TensorArray"}, "the behaviour changed"
PY
RAY_USAGE_STATS_ENABLED=0 RAY_DATA_DISABLE_PROGRESS_BARS=1 python shards.py 2> errors.txt || { tail -3 errors.txt; exit 1; }
