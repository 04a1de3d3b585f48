"""GrabCut: a baseline without training and without weights, to see what image edges alone can do for a mask.

Rother, Kolmogorov and Blake, "GrabCut" (SIGGRAPH 2004), as OpenCV has it: a colour model of the
object and one of the rest, and a graph cut. Only the region around the mask's border may change; its
width is that of boundary IoU's band (2 % of the image's diagonal). None of the paper's rivals; it
needs nothing but OpenCV, so the whole path can be tried with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from hqsam.refiners._base import BoolMask, Image, Opened, RefinerOptions

BAND = 0.02
ROUNDS = 3


def refine(image: Image, mask: BoolMask) -> BoolMask:
    """See ``Opened.run``.

    A mask that leaves no certain pixel inside or outside comes back as it is.
    """
    radius = max(1, round(BAND * math.hypot(*mask.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # Beyond the frame the object may go on: the frame is not a border of the mask.
    inside = cv2.erode(mask.astype(np.uint8), disc, borderType=cv2.BORDER_REPLICATE).astype(bool)
    outside = ~cv2.dilate(mask.astype(np.uint8), disc).astype(bool)
    if not inside.any() or not outside.any():
        return mask.copy()
    labels = np.where(mask, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_PR_BGD))
    labels[inside], labels[outside] = cv2.GC_FGD, cv2.GC_BGD
    cv2.setRNGSeed(0)  # its colour models begin with k-means
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(
        np.ascontiguousarray(image[..., ::-1]),
        labels,
        (0, 0, 0, 0),
        *models,
        ROUNDS,
        cv2.GC_INIT_WITH_MASK,
    )
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))


@dataclass(frozen=True)
class GrabCut:
    """The refiner ``grabcut``."""

    name: str = "grabcut"
    version: int = 1

    def open(self, options: RefinerOptions) -> Opened:
        """See ``Refiner.open``; no option matters."""
        settings = {"band": BAND, "rounds": ROUNDS, "opencv": cv2.__version__}
        return Opened(refine, {"name": self.name, "version": self.version, **settings})


REFINER = GrabCut()
