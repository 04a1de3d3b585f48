"""FSS-1000: 1,000 classes of ten small pictures; all classes are used."""

from hqsam_datasets.sources.base import DataSheet
from hqsam_datasets.sources.folders import FolderSource, Layout, Part

_ODD = "the mask has another size than the set's 224x224"
_STRAY = "an eleventh picture of its class, without annotation"

SHEET = DataSheet(
    title="FSS-1000",
    url="https://github.com/HKUSTCV/FSS-1000",
    licence="none stated",
    citation="Li et al., FSS-1000: A 1000-Class Dataset for Few-Shot Segmentation, CVPR 2020",
    n_pairs=10_000,
    layout=(
        "repack: cascade_psp/fss_all/<stem>.{jpg,png}, flat; "
        "original: fewshot_data/fewshot_data/<class>/<1..10>.{jpg,png}"
    ),
    checksums={
        "cascade_psp.zip": "5191a51fa482d997a9e5234b12fbcacaf7979af70be489496f2ac8c611e9b46a",
    },
    known_bad={
        "peregine_falcon/8": "a colour picture stands in place of the mask",
        "bamboo_slip/7": "reported as unlabelled: the mask is empty",
        "rubber_eraser/8": f"{_ODD} (629x622)",
        "shower_curtain/3": f"{_ODD} (450x450)",
        "crt_screen/6": f"{_ODD} (500x500)",
        "rocking_chair/9": f"{_ODD} (640x550)",
        "screw/8": f"{_ODD} (562x424)",
        "ruler/10": f"{_ODD} (1024x700)",
    },
    strays={
        "beam_bridge/10.jpeg": _STRAY,
        "banana_boat/1.jpeg": _STRAY,
        "flying_geckos/1.jpeg": _STRAY,
        "har_gow/4.jpeg": _STRAY,
        "pteropus/9.jpeg": _STRAY,
        "wandering_albatross/6.jpeg": _STRAY,
        "*.jpeg": f"{_STRAY} (the official loader takes .jpg alone)",
    },
    notes=(
        "Masks are PNG with three equal channels, some RGBA. Class names hold apostrophes and "
        "typos. The file names of "
        "the flat repack are not documented: no class is read from them, and bad files are "
        "recognised as class and "
        "number in either order, whatever stands between. Should they be called otherwise, "
        "`expected: 9998` is right. "
        "Bad files: issues 8 and 17 of the repository, issue 26 of SysCV/sam-hq. With "
        "drop_known_bad: false the six "
        "masks of another size are stretched to their images, and 9,998 of the 10,000 pairs "
        "become samples: "
        "peregine_falcon/8 has a picture for a mask and bamboo_slip/7 an empty one, which no "
        "prompt can be drawn from."
    ),
)

SOURCE = FolderSource(
    SHEET,
    layouts=(
        Layout(parts=(Part("fss_all", "fss_all"),)),
        Layout(parts=(Part(".", ".", nested=True),), marker="abe's_flyingfish"),
        Layout(parts=(Part(".", ".", nested=True),), marker="ab_wheel"),
    ),
)
