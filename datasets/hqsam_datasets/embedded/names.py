"""File names of the published sets, quirks included.

Every function gives the names of one set in a fixed order; nothing depends on earlier calls.
Numbers, hashes and clip ids are made up in the published shape; class names and the known bad files
are the real ones.
"""

from __future__ import annotations

import numpy as np

from hqsam_datasets.embedded.packing import rng_of

_DIS_GROUPS = (
    (1, "Accessories", 1, "Bag"),
    (2, "Aircraft", 9, "Kite"),
    (4, "Architecture", 5, "GasStation"),
    (4, "Architecture", 13, "Scaffold"),
    (8, "Electronics", 3, "Antenna"),
    (12, "Graphics", 4, "TrafficSign"),
    (13, "Insect", 4, "Butterfly"),
    (17, "Non-motor Vehicle", 1, "BabyCarriage"),
    (20, "Sports", 9, "TennisRacket"),
    (22, "Weapon", 4, "Rifle"),
)

FSS_CLASSES = (
    "abe's_flyingfish",
    "ab_wheel",
    "bamboo_slip",
    "beam_bridge",
    "peregine_falcon",
    "rubber_eraser",
)
"""FSS-1000 classes of the sample: an apostrophe, a typo, and the classes with known bad files."""

FSS_STRAYS = (
    ("beam_bridge", 10),
    ("banana_boat", 1),
    ("flying_geckos", 1),
    ("har_gow", 4),
    ("pteropus", 9),
    ("wandering_albatross", 6),
)
"""(class, number) of the six ``.jpeg`` files without annotation."""

FSS_PICTURE_AS_MASK = ("peregine_falcon", 8)
FSS_UNLABELLED = ("bamboo_slip", 7)
FSS_ODD_MASKS = {
    ("rubber_eraser", 8): (629, 622),
    ("shower_curtain", 3): (450, 450),
    ("crt_screen", 6): (500, 500),
    ("rocking_chair", 9): (640, 550),
    ("screw", 8): (562, 424),
    ("ruler", 10): (1024, 700),
}
"""(class, number) -> published (width, height) of masks that do not have the nominal size of the set."""

MSRA_MISLABELLED = "97915"


TRAINING_COUNTS = {
    "dis5k": 60,
    "thinobject5k": 70,
    "fss1000": 60,
    "ecssd": 40,
    "msra10k": 60,
    "duts": 70,
}
"""Good samples per source."""

DUTS_TRAIN = 48
"""How many of DUTS are in DUTS-TR; the rest is in DUTS-TE."""


def dis(split: str, n: int) -> list[str]:
    """Return DIS5K stems: ``<group id>#<Group>#<category id>#<Category>#<Flickr id>_<hash>_o``."""
    rng = rng_of("names", "dis", split)
    return [
        "#".join(map(str, _DIS_GROUPS[int(rng.integers(len(_DIS_GROUPS)))])) + "#" + _flickr(rng)
        for _ in range(n)
    ]


def _flickr(rng: np.random.Generator) -> str:
    return f"{int(rng.integers(10**9, 10**10))}_{int(rng.integers(16**10)):010x}_o"


def hrsod(n: int) -> list[str]:
    """Return HRSOD stems: Flickr originals."""
    rng = rng_of("names", "hrsod")
    return [_flickr(rng) for _ in range(n)]


def coift(n: int) -> list[str]:
    """Return COIFT stems: birds, then insects."""
    return [f"{'bird' if i < n // 2 else 'insect'}{i % (n // 2) + 1:02d}" for i in range(n)]


def thin(split: str, n: int) -> list[str]:
    """Return ThinObject-5K stems: pngimg.com class and number."""
    rng = rng_of("names", "thin", split)
    classes = (
        "bicycle",
        "chandelier",
        "dream_catcher",
        "fence",
        "ladder",
        "scissors",
        "tennis",
        "umbrella",
        "windmill",
    )
    numbers = rng.choice(900, size=n, replace=False) + 100
    return [f"{classes[int(rng.integers(len(classes)))]}_{int(k)}" for k in numbers]


def fss(n: int) -> list[str]:
    """Return FSS-1000 stems in the flat ``fss_all`` folder (``<class>_<number>``), known bad files left out."""
    bad = {FSS_PICTURE_AS_MASK, FSS_UNLABELLED, *FSS_STRAYS, *FSS_ODD_MASKS}
    classes = (*FSS_CLASSES, "shower_curtain", "crt_screen", "rocking_chair", "screw")
    stems = [f"{name}_{k}" for k in range(1, 11) for name in classes if (name, k) not in bad]
    return sorted(stems[:n])


def ecssd(n: int) -> list[str]:
    """Return ECSSD stems: 0001, 0002, ..."""
    return [f"{i + 1:04d}" for i in range(n)]


def msra(n: int) -> list[str]:
    """Return MSRA-10K stems: MSRA-B numbers, the mislabelled one left out."""
    numbers = rng_of("names", "msra").choice(200_000, size=n + 1, replace=False)
    return sorted([str(int(k)) for k in numbers if str(int(k)) != MSRA_MISLABELLED], key=int)[:n]


def duts(split: str, n: int) -> list[str]:
    """Return DUTS stems: training from ImageNet-DET train and val, test from ImageNet-DET test and SUN."""
    rng = rng_of("names", "duts", split)
    stems = []
    for i, k in enumerate(rng.choice(90_000, size=n, replace=False)):
        number = int(k) + 1
        if split == "TR":
            stems.append(
                f"ILSVRC2014_train_{number:08d}"
                if i % 2
                else f"n{3_000_000 + number * 7:08d}_{number}"
            )
        else:
            scene = "".join(chr(97 + int(c)) for c in rng.integers(26, size=16))
            stems.append(f"ILSVRC2012_test_{number:08d}" if i % 3 else f"sun_{scene}")
    return stems


def coco_ids(split: str, n: int) -> list[int]:
    """Return COCO image ids (the files are ``%012d.jpg``)."""
    return sorted(
        int(k) for k in rng_of("names", "coco", split).choice(581_000, size=n, replace=False) + 100
    )


def youtube_clips(n: int) -> list[str]:
    """Return UVO folders: YouTube id and the clip's seconds."""
    rng = rng_of("names", "uvo")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
    clips = []
    for _ in range(n):
        start = int(rng.integers(0, 300))
        clips.append(
            "".join(letters[int(k)] for k in rng.integers(64, size=11))
            + f"_{start:06d}_{start + 10:06d}"
        )
    return clips


def ytvis_videos(n: int) -> list[str]:
    """Return YouTube-VIS folders: ten hexadecimal digits."""
    rng = rng_of("names", "ytvis")
    return [f"{int(rng.integers(16**10)):010x}" for _ in range(n)]


def big(n_photos: int) -> list[str]:
    """Return BIG names without the object's number: year, running number and a PASCAL VOC class."""
    rng = rng_of("names", "big")
    classes = ("bicycle", "chair", "bird", "pottedplant", "aeroplane", "horse")
    return [
        f"2009_{int(rng.integers(10**6)):06d}_{classes[i % len(classes)]}" for i in range(n_photos)
    ]


def stems_of(source: str) -> list[str]:
    """Return the published stems of a source's good images, in its fixed order."""
    n = TRAINING_COUNTS[source]
    if source == "duts":
        return duts("TR", DUTS_TRAIN) + duts("TE", n - DUTS_TRAIN)
    if source == "dis5k":
        return dis("TR", n)
    if source == "thinobject5k":
        return thin("train", n)
    return {"fss1000": fss, "ecssd": ecssd, "msra10k": msra}[source](n)
