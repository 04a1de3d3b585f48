"""Own data: a folder of images and a folder of label maps (palette or grey PNG), one instance per label.

    sources:
      my_parts: {kind: label_maps, archive: my_parts, images: JPEGImages, masks: SegmentationObject}

Label 0 is background and 255 void, as in PASCAL VOC and DAVIS; the label becomes the instance's
category.
"""

from __future__ import annotations

from hqsam_datasets.sources.base import DataSheet
from hqsam_datasets.sources.folder import AnyFolder

SHEET = DataSheet(
    title="a folder of images and a folder of label maps",
    url="",
    licence="the user's own",
    citation="",
    n_pairs=0,
    layout=__doc__ or "",
)

SOURCE = AnyFolder(SHEET, label_maps=True)
