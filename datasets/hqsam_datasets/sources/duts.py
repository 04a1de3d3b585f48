"""DUTS, training and test split together: 15,572 salient objects."""

from hqsam_datasets.sources.base import DataSheet
from hqsam_datasets.sources.folders import FolderSource, Layout, Part

SHEET = DataSheet(
    title="DUTS (DUTS-TR and DUTS-TE)",
    url="http://saliencydetection.net/duts/",
    licence="none stated (copies on model hubs say CC BY-NC or unknown)",
    citation="Wang et al., Learning to Detect Salient Objects with Image-level Supervision, CVPR "
    "2017",
    n_pairs=15_572,
    layout=(
        "repack: cascade_psp/{DUTS-TR,DUTS-TE}/<stem>.{jpg,png}, flat; "
        "original: DUTS-TR/{DUTS-TR-Image,DUTS-TR-Mask} and the same for TE"
    ),
    checksums={
        "cascade_psp.zip": "5191a51fa482d997a9e5234b12fbcacaf7979af70be489496f2ac8c611e9b46a",
    },
    notes=(
        "10,553 training and 5,019 test pairs. The text of the HQ-SAM paper says DUT-OMRON; its "
        "Table 14 and its code "
        "use DUTS. Grey photographs occur; masks have soft edges. Pictures from ImageNet-DET and "
        "SUN."
    ),
)

SOURCE = FolderSource(
    SHEET,
    layouts=(
        Layout(
            parts=(
                Part("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask"),
                Part("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask"),
            )
        ),
        Layout(parts=(Part("DUTS-TR", "DUTS-TR"), Part("DUTS-TE", "DUTS-TE"))),
    ),
)
