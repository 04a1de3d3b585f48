"""thin_object_detection.zip: COIFT, HRSOD and ThinObject-5K, without a root folder.

COIFT's masks are plain 0/255, HRSOD's lie in ``masks_max255`` (the union of all objects),
ThinObject's have the soft edges of cut-outs with an alpha channel.
"""

from __future__ import annotations

from hqsam_datasets.embedded import evaluation
from hqsam_datasets.embedded.evaluation import Photo
from hqsam_datasets.embedded.names import TRAINING_COUNTS
from hqsam_datasets.embedded.packing import Member, zip_bytes
from hqsam_datasets.embedded.training import MaskStyle, mask_file, pair


def _set(photos: list[Photo], images: str, masks: str, style: MaskStyle) -> list[Member]:
    members = []
    for photo in photos:
        members.append((f"{images}/{photo.name}.jpg", photo.file()))
        members.append((f"{masks}/{photo.name}.png", mask_file(photo.union(), style)))
    return members


def thin_object_detection_zip() -> bytes:
    """Return the archive's one file."""
    training = []
    for i in range(TRAINING_COUNTS["thinobject5k"]):
        made = pair("thinobject5k", i)
        training.append((f"ThinObject5K/images_train/{made.stem}.jpg", made.image))
        training.append(
            (f"ThinObject5K/masks_train/{made.stem}.png", mask_file(made.alpha, "soft"))
        )
    return zip_bytes(
        [
            *_set(evaluation.coift(), "COIFT/images", "COIFT/masks", "binary"),
            *_set(evaluation.hrsod(), "HRSOD/images", "HRSOD/masks_max255", "binary"),
            *_set(
                evaluation.thinobject5k_test(),
                "ThinObject5K/images_test",
                "ThinObject5K/masks_test",
                "soft",
            ),
            *training,
        ]
    )


FILES = {"thin_object_detection.zip": thin_object_detection_zip}
