"""MSRA-10K (THUS10000): 10,000 salient objects."""

from hqsam_datasets.sources.base import DataSheet
from hqsam_datasets.sources.folders import FolderSource, Layout, Part

SHEET = DataSheet(
    title="MSRA-10K (THUS10000)",
    url="https://mmcheng.net/msra10k/",
    licence="none stated",
    citation="Cheng et al., Global Contrast based Salient Region Detection, TPAMI 2015",
    n_pairs=10_000,
    layout="repack: cascade_psp/MSRA_10K/<id>.{jpg,png}; original: "
    "MSRA10K_Imgs_GT/Imgs/<id>.{jpg,png}; both flat",
    checksums={
        "cascade_psp.zip": "5191a51fa482d997a9e5234b12fbcacaf7979af70be489496f2ac8c611e9b46a",
    },
    known_bad={"97915": "reported as mislabelled (SysCV/sam-hq issue 26)"},
    notes="Binary masks. Selected from MSRA-B, superset of ASD: overlaps with other saliency sets "
    "are likely.",
)

SOURCE = FolderSource(
    SHEET,
    layouts=(
        Layout(parts=(Part("MSRA_10K", "MSRA_10K"),)),
        Layout(parts=(Part("MSRA10K_Imgs_GT/Imgs", "MSRA10K_Imgs_GT/Imgs"),)),
    ),
)
