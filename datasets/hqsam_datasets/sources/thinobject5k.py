"""ThinObject-5K, training split: 4,748 composites of thin cut-outs on photographs."""

from hqsam_datasets.sources.base import DataSheet
from hqsam_datasets.sources.folders import FolderSource, Layout, Part

SHEET = DataSheet(
    title="ThinObject-5K (train)",
    url="https://github.com/liewjunhao/thin-object-selection",
    licence="CC BY-NC 4.0 (the project's; rights of the source pictures on top)",
    citation="Liew et al., Deep Interactive Thin Object Selection, WACV 2021",
    n_pairs=4748,
    layout=(
        "repack: ThinObject5K/{images_train,masks_train}; "
        "original: ThinObject5K/{images,masks} with list/train.txt naming '<stem>.png'"
    ),
    checksums={
        "thin_object_detection.zip": "133b9916eee3b9a38d87c8cbdc556962d42c36ec9e9fe9bb42b2ceebbe7200d2",
    },
    notes=(
        "The pictures are synthetic: cut-outs from pngimg.com on HRSOD or COCO backgrounds (train "
        "and validation), so "
        "they share backgrounds with HRSOD, COCO and LVIS evaluation images. Masks come from "
        "alpha channels: soft "
        "edges. The validation split of 500 is not shipped in the repack and not used."
    ),
)

SOURCE = FolderSource(
    SHEET,
    layouts=(
        Layout(parts=(Part("ThinObject5K/images_train", "ThinObject5K/masks_train"),)),
        Layout(
            parts=(
                Part(
                    "ThinObject5K/images",
                    "ThinObject5K/masks",
                    listing="ThinObject5K/list/train.txt",
                ),
            )
        ),
    ),
)
