"""Own evaluation data: a folder of images and a folder of label maps, one object for each label but 0 and 255.

    benchmarks:
      my_maps: {kind: label_maps, archive: my_maps, index: {prompt_sets: [gt_box], images: photos,
      masks: labels}, ...}

Source, licence, count: the user's own. Layout: as of `kind: label_maps` of `sources`; see
docs/own-data.md. Known bad files: those under `skip`.
"""

from hqsam_datasets.benchmarks.own import OwnSet
from hqsam_datasets.sources.label_maps import SOURCE

BENCHMARK = OwnSet(name="label_maps", source=SOURCE)
