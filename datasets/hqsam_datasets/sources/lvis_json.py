"""Own data: images with a LVIS annotation file, several instances per image.

    sources:
      my_set: {kind: lvis_json, archive: my_set, images: train, annotations: instances.json}

Polygons and run-length masks are rasterised by pycocotools. Images need no `file_name`: the last
two parts of `coco_url` are the path below `images`.
"""

from __future__ import annotations

from hqsam_datasets.sources.annotations import AnnotatedImages
from hqsam_datasets.sources.base import DataSheet

SHEET = DataSheet(
    title="images with a LVIS annotation file",
    url="",
    licence="the user's own",
    citation="",
    n_pairs=0,
    layout=__doc__ or "",
)

SOURCE = AnnotatedImages(SHEET)
