"""Own evaluation data: a folder of images and a folder of masks, of any common format, with one or several masks per image.

    benchmarks:
      my_birds: {kind: folder, archive: my_birds, index: {prompt_sets: [gt_box], images: photos,
      masks: masks}, ...}

Source, licence, count: the user's own. Layout: as of `kind: folder` of `sources`; see
docs/own-data.md. Known bad files: those under `skip`. Every mask is an object of its own, prompted
by its box.
"""

from hqsam_datasets.benchmarks.own import OwnSet
from hqsam_datasets.sources.folder import SOURCE

BENCHMARK = OwnSet(name="folder", source=SOURCE)
