"""DIS-TE1: test part 1 of 4 of DIS5K V1.0, 500 images; the parts rise in shape complexity.

Source, licence, layout and protocol as DIS-VD (`dis_vd`): `DIS-TE1/im/<stem>.jpg`,
`DIS-TE1/gt/<stem>.png`. Only the original archive and full repacks hold it, the zip of the HQ-SAM
authors does not; their code does not evaluate it. Known bad files: none.
"""

from hqsam_datasets.benchmarks.common import MaskFolders

BENCHMARK = MaskFolders(
    name="dis_te1", images=("DIS-TE1", "im"), masks=("DIS-TE1", "gt"), dataset_version="DIS5K V1.0"
)
