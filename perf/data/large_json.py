"""Peak memory of reading an annotation file of LVIS v1 val's size, and of writing it as gt.json.

    python perf/data/large_json.py [--full] [--vertices 90] [--json FILE]

The file is synthetic: as many images, annotations and polygon vertices (`--full`; else a tenth of
them). Reported: its size, the peak of this process (which holds nothing else), and that of plain
`json.loads` in a process of its own. Target: 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hqsam_base import json_stream
from hqsam_datasets.benchmarks.cocolike import read_annotations

PLAIN = """
import json, resource, sys
from pathlib import Path
value = json.loads(Path(sys.argv[1]).read_bytes())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write_file(path: Path, n_images: int, n_annotations: int, vertices: int) -> None:
    """Images, and annotations of `vertices` polygon vertices on average."""
    dice = random.Random(0)
    with path.open("w") as file:
        images = [
            {
                "id": i,
                "height": 480,
                "width": 640,
                "coco_url": f"http://images.cocodataset.org/val2017/{i:012d}.jpg",
                "neg_category_ids": [dice.randrange(1203) for _ in range(8)],
                "not_exhaustive_category_ids": [],
            }
            for i in range(1, n_images + 1)
        ]
        file.write(f'{{"images":{json.dumps(images)},"categories":[],"annotations":[')
        for number in range(n_annotations):
            polygon = [
                round(dice.uniform(0, 480), 2) for _ in range(2 * dice.randrange(3, 2 * vertices))
            ]
            record = {
                "id": number,
                "image_id": dice.randrange(n_images) + 1,
                "category_id": 1,
                "area": 100.5,
                "bbox": [1.5, 2.5, 30.25, 40.75],
                "segmentation": [polygon],
            }
            file.write(("," if number else "") + json.dumps(record))
        file.write("]}")


def measure(n_images: int, n_annotations: int, vertices: int) -> dict[str, Any]:
    """One row."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "lvis.json"
        write_file(path, n_images, n_annotations, vertices)
        size = path.stat().st_size
        start = time.process_time()
        annotated = read_annotations(path)
        truth, places = annotated.truth, annotated.by_image
        n = sum(
            len(truth["annotations"][place]["segmentation"])
            for group in places.values()
            for place in group
        )
        json_stream.write_packed(Path(name) / "gt.json", truth)
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        plain = subprocess.run(
            [sys.executable, "-c", PLAIN, str(path)], capture_output=True, text=True, check=True
        )
    return {
        "file_mb": size >> 20,
        "annotations": n,
        "cpu_s": round(seconds, 1),
        "peak_mb": peak,
        "json_loads_peak_mb": int(plain.stdout),
    }


def main() -> int:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--vertices", type=int, default=90)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    share = 1 if arguments.full else 10
    result = measure(19_809 // share, 244_707 // share, arguments.vertices)
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(result["peak_mb"] > 1500)


if __name__ == "__main__":
    sys.exit(main())
