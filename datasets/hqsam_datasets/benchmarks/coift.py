"""COIFT: 280 photographs of birds and insects with thin parts.

Source: origin at IME-USP (connected operators, image foresting transform), repacked by Liew et al.,
Deep Interactive Thin Object Selection, WACV 2021; inside `thin_object_detection.zip` of the HQ-SAM
authors. Licence of the origin: not stated. Layout: `COIFT/images/<stem>.jpg`,
`COIFT/masks/<stem>.png` with 0/255. In the WACV authors' own archive masks hold object ids, which
the loader names instead of scoring them as empty. Known bad files: none. Protocol as DIS-VD.
"""

from hqsam_datasets.benchmarks.common import MaskFolders

BENCHMARK = MaskFolders(
    name="coift",
    images=("COIFT", "images"),
    masks=("COIFT", "masks"),
    dataset_version="COIFT (HQSeg-44K repack)",
)
