"""DIS5K, training split: 3,000 intricate objects in large photographs."""

from hqsam_datasets.sources.base import DataSheet
from hqsam_datasets.sources.folders import FolderSource, Layout, Part

SHEET = DataSheet(
    title="DIS5K V1.0 (DIS-TR), Highly Accurate Dichotomous Image Segmentation",
    url="https://xuebinqin.github.io/dis/index.html",
    licence="non-commercial research and education only; no redistribution, so derived shards "
    "stay local",
    citation="Qin et al., Highly Accurate Dichotomous Image Segmentation, ECCV 2022",
    n_pairs=3000,
    layout="DIS5K/DIS-TR/{im,gt}/<stem>.{jpg,png} in the repack and in the original archive",
    checksums={
        "DIS5K.zip": "881e4668606548c4ed4e3cf429d65962ae5c7710d97d99759889b2ebd95a03f0",
    },
    notes=(
        "Stems hold '#': <groupId>#<Group>#<catId>#<Category>#<flickrId>_<hash>_o. Masks are "
        "anti-aliased. The repack "
        "of HQ-SAM (checksum above) has DIS-TR and DIS-VD only; the full archive also has DIS-TE1 "
        "to TE4. The "
        "4,990-row copies found on model hubs are not the official split."
    ),
)

SOURCE = FolderSource(SHEET, layouts=(Layout(parts=(Part("DIS-TR/im", "DIS-TR/gt"),)),))
