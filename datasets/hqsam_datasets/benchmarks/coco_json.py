"""Own evaluation data: images with a COCO annotation file.

    benchmarks:
      my_set: {kind: coco_json, archive: my_set, index: {prompt_sets: [gt_box], images: val,
      annotations: instances.json}, ...}

Source, licence, count: the user's own. Layout: as of `kind: coco_json` of `sources`; see
docs/own-data.md. Known bad files: those under `skip`. With `detections`, a file in the COCO results
format, the prompts are `detector_box` and the metric is `coco` (AP 0.50:0.95 over the file's own
classes); without, every object is prompted by its box and the metric is `masks`.
"""

from hqsam_datasets.benchmarks.own import OwnSet
from hqsam_datasets.sources.coco_json import SOURCE

BENCHMARK = OwnSet(name="coco_json", source=SOURCE, detected="coco")
