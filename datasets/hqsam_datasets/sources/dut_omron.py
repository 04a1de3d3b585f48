"""DUT-OMRON: 5,168 salient objects. Not part of HQSeg-44K: an option for the ablations on training data."""

from hqsam_datasets.sources.base import DataSheet
from hqsam_datasets.sources.folders import FolderSource, Layout, Part

SHEET = DataSheet(
    title="DUT-OMRON",
    url="http://saliencydetection.net/dut-omron/",
    licence="none stated",
    citation="Yang et al., Saliency Detection via Graph-Based Manifold Ranking, CVPR 2013",
    n_pairs=5168,
    layout="DUT-OMRON-image/<stem>.jpg and pixelwiseGT-new-PNG/<stem>.png, published as two "
    "archives",
    notes=(
        "The text of the HQ-SAM paper names this set where its Table 14 and its code use DUTS. "
        "The page says that four "
        "images without ground truth were removed on 2018-01-22; older copies still hold them. "
        "The folder of the masks is "
        "named as commonly found: not verified."
    ),
    known_bad={
        "img_561715398": "no ground truth (removed by the authors)",
        "sun_bqfgwnmzhjwuphdi": "no ground truth (removed by the authors)",
        "sun_bswlalhygmnrhvuw": "no ground truth (removed by the authors)",
        "sun_buaqzytduodbufcb": "no ground truth (removed by the authors)",
    },
)

SOURCE = FolderSource(
    SHEET,
    layouts=(
        Layout(parts=(Part("DUT-OMRON-image", "pixelwiseGT-new-PNG"),)),
        Layout(parts=(Part("DUT-OMRON", "DUT-OMRON"),)),
    ),
)
