"""DIS-TE2: test part 2 of 4 of DIS5K V1.0, 500 images; the parts rise in shape complexity.

Source, licence, layout and protocol as DIS-VD (`dis_vd`): `DIS-TE2/im/<stem>.jpg`,
`DIS-TE2/gt/<stem>.png`. Only the original archive and full repacks hold it, the zip of the HQ-SAM
authors does not; their code does not evaluate it. Known bad files: none.
"""

from hqsam_datasets.benchmarks.common import MaskFolders

BENCHMARK = MaskFolders(
    name="dis_te2", images=("DIS-TE2", "im"), masks=("DIS-TE2", "gt"), dataset_version="DIS5K V1.0"
)
