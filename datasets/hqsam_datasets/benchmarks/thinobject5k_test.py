"""ThinObject-5K test: 500 composites of thin objects.

Source: Liew et al., Deep Interactive Thin Object Selection, WACV 2021. Licence: CC BY-NC 4.0.
Cut-outs from pngimg.com on DIV2K or PASCAL backgrounds. Layout in `thin_object_detection.zip`:
`ThinObject5K/images_test/<stem>.jpg`, `ThinObject5K/masks_test/<stem>.png`, soft edges, foreground
above 128. Known bad files: none. Protocol as DIS-VD.
"""

from hqsam_datasets.benchmarks.common import MaskFolders

BENCHMARK = MaskFolders(
    name="thinobject5k_test",
    images=("ThinObject5K", "images_test"),
    masks=("ThinObject5K", "masks_test"),
    dataset_version="ThinObject-5K test",
)
