"""DIS-VD: the validation part of DIS5K V1.0, 470 images of intricate objects.

Source: Qin et al., Highly Accurate Dichotomous Image Segmentation, ECCV 2022; inside the
`DIS5K.zip` of the HQ-SAM authors and in the original archive. Licence: non-commercial research and
education, no redistribution. Layout:
`DIS-VD/im/<stem>.jpg`, `DIS-VD/gt/<stem>.png`; stems hold `#`. Images are 2K to 4K, masks 8-bit
grey with anti-aliased edges, foreground above 128. Known bad files: none. Protocol of HQ-SAM: box
of the ground truth, image stretched to the input square, HQ token alone, mIoU and mBIoU (dilation
0.02).
"""

from hqsam_datasets.benchmarks.common import MaskFolders

BENCHMARK = MaskFolders(
    name="dis_vd", images=("DIS-VD", "im"), masks=("DIS-VD", "gt"), dataset_version="DIS5K V1.0"
)
