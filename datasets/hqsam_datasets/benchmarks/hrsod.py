"""HRSOD: the 287-image subset of HRSOD that HQ-SAM evaluates (not the 400-image test set).

Source: Zeng et al., Towards High-Resolution Salient Object Detection, ICCV 2019; subset by Liew et
al., WACV 2021; inside `thin_object_detection.zip`. Licence: none stated. Layout:
`HRSOD/images/<stem>.jpg`,
`HRSOD/masks_max255/<stem>.png`: the union of all objects at 255. Some photographs carry an EXIF
orientation; the index checks the size of image and mask both ways. Known bad files: none. Protocol
as DIS-VD.
"""

from hqsam_datasets.benchmarks.common import MaskFolders

BENCHMARK = MaskFolders(
    name="hrsod",
    images=("HRSOD", "images"),
    masks=("HRSOD", "masks_max255"),
    dataset_version="HRSOD-287 (HQSeg-44K repack)",
)
