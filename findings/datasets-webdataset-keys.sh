#!/usr/bin/env bash
# datasets 5.2.0: `load_dataset("webdataset")` drops whatever the first five samples do not have, without a word.
# Guess: a field or a key of the JSON that comes later is None in the samples before it, or the load fails and names it.
# What happens: files and JSON keys are taken from the first five samples of the first shard; a mask or a key that begins with
#     the sixth is missing from all rows, and nothing is said.
# Seen: datasets 5.2.0: the sixth of 12 samples has mask.png and "score": columns ['__key__', '__url__', 'json', 'png'], json {'id': 5}
# Hurts: shards with optional masks or attributes (crowds, scores, void areas): the evaluation runs without them.

. "$(dirname "$0")/_setup.sh"
install numpy==2.4.6 pillow==13.0.0 datasets==5.2.0
cat > keys.py <<'PY'
import io
import json
import tarfile

import datasets
from PIL import Image

picture = io.BytesIO()
Image.new("L", (16, 16), 1).save(picture, "PNG")
with tarfile.open("shard.tar", "w") as tar:
    for sample in range(12):
        files = {"png": picture.getvalue(), "json": json.dumps({"id": sample}).encode()}
        if sample == 5:
            files["mask.png"] = picture.getvalue()
            files["json"] = json.dumps({"id": sample, "score": 0.5}).encode()
        for extension, content in files.items():
            member = tarfile.TarInfo(f"{sample:03d}.{extension}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
datasets.disable_progress_bars()
table = datasets.load_dataset("webdataset", data_files={"train": "shard.tar"}, split="train", cache_dir="cache")
columns, row = sorted(table.column_names), table[5]["json"]
print(f"seen now: {len(table)} rows, columns {columns}, json of the sixth {row}")
assert columns == ["__key__", "__url__", "json", "png"] and row == {"id": 5}, "the behaviour changed"
PY
HF_HUB_OFFLINE=1 HOME="$work" python keys.py
