"""DIS5K.zip: root folder ``DIS5K/``, splits TR and VD, ``#`` in names, soft masks, some photographs stored turned."""

from __future__ import annotations

import numpy as np

from hqsam_datasets.embedded import evaluation
from hqsam_datasets.embedded.names import TRAINING_COUNTS
from hqsam_datasets.embedded.packing import png, zip_bytes
from hqsam_datasets.embedded.training import mask_file, pair

_TURNED = {10: 6, 25: 8, 40: 3}
"""Place -> EXIF orientation; the masks of these are upright."""

_TERMS = (
    b"%PDF-1.4\n% Stand-in for the terms of use of DIS5K. These pictures are generated: no terms "
    b"apply.\n%%EOF\n"
)


def dis5k_zip() -> bytes:
    """Return the archive's one file."""
    terms = ("DIS5K/DIS5K Dataset Terms of Use.pdf", _TERMS)
    training = []
    for i in range(TRAINING_COUNTS["dis5k"]):
        made = pair("dis5k", i, orientation=_TURNED.get(i, 1))
        training.append((f"DIS5K/DIS-TR/im/{made.stem}.jpg", made.image))
        training.append((f"DIS5K/DIS-TR/gt/{made.stem}.png", mask_file(made.alpha, "soft")))
    validation = []
    for photo in evaluation.dis_vd():
        validation.append((f"DIS5K/DIS-VD/im/{photo.name}.jpg", photo.file()))
        validation.append(
            (
                f"DIS5K/DIS-VD/gt/{photo.name}.png",
                png(np.rint(photo.union() * 255).astype(np.uint8)),
            )
        )
    return zip_bytes([terms, *training, *validation], folders=True)


FILES = {"DIS5K.zip": dis5k_zip}
