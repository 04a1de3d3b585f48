"""ECSSD: 1,000 salient objects in complex scenes."""

from hqsam_datasets.sources.base import DataSheet
from hqsam_datasets.sources.folders import FolderSource, Layout, Part

SHEET = DataSheet(
    title="Extended Complex Scene Saliency Dataset (ECSSD)",
    url="http://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
    licence="none stated",
    citation="Shi et al., Hierarchical Image Saliency Detection on Extended CSSD, TPAMI 2016",
    n_pairs=1000,
    layout=(
        "repack: cascade_psp/ecssd/<stem>.{jpg,png}, flat; "
        "original: images.zip (images/0001.jpg ...) and ground_truth_mask.zip "
        "(ground_truth_mask/0001.png ...)"
    ),
    checksums={
        "cascade_psp.zip": "5191a51fa482d997a9e5234b12fbcacaf7979af70be489496f2ac8c611e9b46a",
    },
    notes="Binary masks. Pictures from BSD, PASCAL VOC and the internet: may occur in other sets.",
)

SOURCE = FolderSource(
    SHEET,
    layouts=(
        Layout(parts=(Part("ecssd", "ecssd"),)),
        Layout(parts=(Part("images", "ground_truth_mask"),)),
    ),
)
