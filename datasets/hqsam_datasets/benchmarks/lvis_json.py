"""Own evaluation data: images with a LVIS annotation file.

    benchmarks:
      my_set: {kind: lvis_json, archive: my_set, index: {prompt_sets: [gt_box], images: val,
      annotations: lvis.json}, ...}

Source, licence, count: the user's own. Layout: as of `kind: lvis_json` of `sources`, the last two
parts of `coco_url` below
`images`; see docs/own-data.md. Known bad files: those under `skip`. With `detections`, a file in
the COCO results format, the prompts are `detector_box` and the metric is `lvis`; without, every
object is prompted by its box and the metric is `masks`.
"""

from hqsam_datasets.benchmarks.own import OwnSet
from hqsam_datasets.sources.lvis_json import SOURCE

BENCHMARK = OwnSet(name="lvis_json", source=SOURCE, detected="lvis")
